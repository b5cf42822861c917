"""Captions in numbers and in words, and the laws that they are drawn by."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.images.captions import COLOURS, KINDS, SHAPES, UNSEEN, Law, draw_captions, from_words, in_words, kind, shape_and_colour, without_places

RED_CIRCLE, BLUE_CROSS = kind(0, 0), kind(3, 2)


def test_kinds_are_numbered_by_shape_and_then_colour() -> None:
    assert (RED_CIRCLE, BLUE_CROSS, KINDS.stop - 1) == (1, 21, 24)
    assert [shape_and_colour(n) for n in (1, 21, 24)] == [(0, 0), (3, 2), (3, 5)]


def test_words_say_what_numbers_say() -> None:
    assert in_words((RED_CIRCLE, 0, 0, BLUE_CROSS)) == "red circle top-left, blue cross bottom-right"
    assert in_words((BLUE_CROSS, RED_CIRCLE, 0, 0), places=False) == "blue cross, red circle"
    assert from_words("blue cross bottom-right, red circle top-left") == ((RED_CIRCLE, 0, 0, BLUE_CROSS), True)
    assert from_words("red circle, blue cross") == ((BLUE_CROSS, RED_CIRCLE, 0, 0), False)


@given(st.lists(st.integers(0, KINDS.stop - 1), min_size=4, max_size=4).filter(any))
def test_words_are_read_back(numbers: list[int]) -> None:
    assert from_words(in_words(numbers)) == (tuple(numbers), True)
    assert from_words(in_words(without_places(numbers), places=False)) == (without_places(numbers), False)


@pytest.mark.parametrize("text", ["", "pink circle top-left", "red circle top", "red circle top-left, blue cross", "red circle top-left, blue cross top-left"])
def test_what_cannot_be_drawn_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="can't be drawn; expected at most one object a place"):
        from_words(text)


def test_uniform_captions_have_one_object_or_two_of_every_kind() -> None:
    captions = draw_captions(4000, "uniform", np.random.default_rng(0))
    objects = [sum(n > 0 for n in caption) for caption in captions]
    assert set(objects) == {1, 2}
    assert objects.count(1) / 4000 == pytest.approx(0.5, abs=0.03)
    assert {n for caption in captions for n in caption} == {0, *KINDS}


def test_biased_captions_have_each_shapes_own_colours_and_some_kinds_never() -> None:
    captions = draw_captions(4000, "biased", np.random.default_rng(0))
    kinds = [shape_and_colour(n) for caption in captions for n in caption if n]
    own = [(colour - 2 * shape) % 6 < 3 for shape, colour in kinds]
    # One in ten objects has any colour; half of those are its shape's own, and of the other half half are kinds that never occur and are drawn again.
    assert sum(own) / len(own) == pytest.approx(0.965, abs=0.015)
    assert len(UNSEEN) == 6
    assert not UNSEEN & {kind(*pair) for pair in kinds}
    assert {shape for shape, _ in kinds} == set(range(len(SHAPES)))
    assert {colour for _, colour in kinds} == set(range(len(COLOURS)))


def test_unseen_captions_have_a_kind_that_biased_ones_never_have() -> None:
    assert all(UNSEEN.intersection(caption) for caption in draw_captions(200, "unseen", np.random.default_rng(0)))
    with pytest.raises(InputError, match=r"no law of captions 'unifrom'\. Did you mean uniform"):
        draw_captions(1, cast(Law, "unifrom"), np.random.default_rng(0))
