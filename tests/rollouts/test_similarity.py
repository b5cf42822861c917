"""How alike two spans are, with numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.rollouts.lookahead import alike_by_edits, alike_by_overlap
from etude.rollouts.similarity import edit_distance, rouge_l, suffix_match

SPANS = st.lists(st.integers(0, 3), min_size=1, max_size=7)


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [([1, 2, 3, 4], [1, 9, 3, 4], 0.25), ([1, 2, 3, 4], [5, 6, 7, 4], 0.75), ([1, 2, 3, 4], [2, 3, 4, 5], 0.5), ([1], [1], 0.0), ([1, 2], [3, 4], 1.0)],
)
def test_edit_distance(first: list[int], second: list[int], distance: float) -> None:
    # The third pair: one deletion in front and one insertion at the end.
    assert edit_distance(first, second) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        # The end 1, 2, 3 of the first stands at the beginning of the second.
        ([7, 1, 2, 3], [1, 2, 3, 9], 3 / 4),
        ([1, 2, 3, 9], [7, 1, 2, 3], 3 / 4),
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        # The last tokens, 3 and 4, occur nowhere in the other.
        ([1, 2, 3], [1, 2, 4], 0.0),
        ([5, 1, 2], [1, 1, 2], 2 / 3),
    ],
)
def test_suffix_match(first: list[int], second: list[int], share: float) -> None:
    assert suffix_match(first, second) == pytest.approx(share)


def test_rouge_l() -> None:
    # 1, 3, 4 is common: recall and precision are 3/4.
    assert rouge_l([1, 2, 3, 4], [1, 9, 3, 4]) == pytest.approx(0.75)
    # 2 of 2 and 2 of 4: 2 x 1 x 0.5 / 1.5.
    assert rouge_l([1, 3], [1, 2, 3, 4]) == pytest.approx(2 / 3)
    assert rouge_l([1, 2], [3, 4]) == 0


@given(SPANS, SPANS)
def test_all_three_are_symmetric_shares_and_agree_on_equal_spans(first: list[int], second: list[int]) -> None:
    for measure, same in ((edit_distance, 0.0), (suffix_match, 1.0), (rouge_l, 1.0)):
        assert 0 <= measure(first, second) <= 1
        assert measure(first, second) == measure(second, first)
        assert measure(first, first) == same
    ends = [n for n in range(1, len(first) + 1) if any(first[-n:] == second[i : i + n] for i in range(len(second)))]
    ends += [n for n in range(1, len(second) + 1) if any(second[-n:] == first[i : i + n] for i in range(len(first)))]
    assert suffix_match(first, second) == pytest.approx(max(ends, default=0) / max(len(first), len(second)))


def test_what_counts_as_the_same() -> None:
    assert alike_by_edits([1, 2, 3, 4], [1, 9, 3, 4], below=0.4) == "edit distance 0.25"
    assert alike_by_edits([1, 2, 3, 4], [5, 6, 7, 4], below=0.4) == ""
    # The bound itself is not below it.
    assert alike_by_edits([1, 2, 3, 4], [1, 9, 3, 4], below=0.25) == ""
    assert alike_by_overlap([7, 1, 2, 3], [1, 2, 3, 9], suffix=0.2, rouge=0.5) == "suffix match 0.75"
    assert alike_by_overlap([1, 2, 3, 8], [1, 2, 3, 9], suffix=0.2, rouge=0.5) == "ROUGE-L 0.75"
    assert alike_by_overlap([1, 2, 3, 8], [1, 2, 3, 9], suffix=0.2, rouge=0.8) == ""
