"""The prioritised buffer: chances, what is driven out, inherited scores."""

from __future__ import annotations

import json
import math
from random import Random

import pytest

from etude.errors import InputError
from etude.memory import TaskBuffer


def filled(buffer: TaskBuffer, **scores: float) -> TaskBuffer:
    for name, score in scores.items():
        buffer.measured(name, name[0], {"is": name}, score, step=1)
    return buffer


def test_scores_become_chances_by_a_softmax() -> None:
    buffer = filled(TaskBuffer(kappa=math.log(3) / 0.1), a=0.1, b=0.0, c=0.2)
    # exp(kappa * 0.1) is 3, so that weights are 3 : 1 : 9.
    assert buffer.chances() == pytest.approx([3 / 13, 1 / 13, 9 / 13])
    drawn = [buffer.sample(Random(i)).id for i in range(1300)]
    assert drawn.count("c") == pytest.approx(900, abs=60)


def test_or_by_rank_of_which_only_the_order_counts() -> None:
    buffer = filled(TaskBuffer(sampling="rank"), a=0.1, b=0.0, c=0.9, d=0.1)
    # Ranks: c 1, d 2 (as good as a, and newer), a 3, b 4; 1 + 1/2 + 1/3 + 1/4 is 25/12.
    assert buffer.chances() == pytest.approx([4 / 25, 3 / 25, 12 / 25, 6 / 25])


def test_a_full_buffer_keeps_the_best() -> None:
    buffer = filled(TaskBuffer(2), a=0.1, b=0.2)
    assert not buffer.derived("c", "c", {}, 0.05, step=2)
    assert buffer.derived("d", "d", {}, 0.1, step=2)
    assert [e.id for e in buffer] == ["b", "d"]
    # What is known already is renewed however low it falls.
    assert buffer.measured("b", "b", {}, 0.0, step=3)
    assert (buffer["b"].score, buffer["b"].step, buffer["b"].visits) == (0.0, 3, 2)


def test_what_was_derived_has_an_inherited_score_until_it_is_measured() -> None:
    buffer = filled(TaskBuffer(max_age=3), a=0.1)
    assert buffer.derived("x", "a", {}, 0.1, step=2)
    assert not buffer.derived("x", "a", {}, 0.2, step=3)
    assert (buffer["x"].score, buffer["x"].visits) == (0.1, 0)
    buffer.measured("x", "a", {}, 0.25, step=4)
    assert (buffer["x"].score, buffer["x"].visits) == (0.25, 1)
    buffer.derived("y", "a", {}, 0.1, step=4)
    assert buffer.age(7) == 0
    assert buffer.age(8) == 1
    assert [e.id for e in buffer] == ["a", "x"]


def test_a_group_has_so_many_derived_entries_at_most() -> None:
    buffer = filled(TaskBuffer(per_group=2), a=0.0)
    for name, score in {"x": 0.1, "y": 0.2, "z": 0.15, "w": 0.05}.items():
        buffer.derived(name, "a", {}, score, step=1)
    buffer.derived("other", "b", {}, 0.0, step=1)
    assert [e.id for e in buffer] == ["a", "y", "z", "other"]


def test_its_state_is_plain_and_gives_the_same_draws() -> None:
    buffer = filled(TaskBuffer(), a=0.1, b=0.2)
    again = TaskBuffer()
    again.load_state(json.loads(json.dumps(buffer.state())))
    assert list(again) == list(buffer)
    assert [again.sample(Random(i)).id for i in range(9)] == [buffer.sample(Random(i)).id for i in range(9)]


def test_nothing_can_be_drawn_from_an_empty_one() -> None:
    with pytest.raises(InputError, match="empty"):
        TaskBuffer().sample(Random(0))
    with pytest.raises(InputError, match="at least 1"):
        TaskBuffer(0)
