"""Where a final answer stands in a text, and when two answers are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.tasks.answers import final_answer, follows_convention, normalise, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9*8=72\nanswer: 72", "72"),
        ("Answer: 72.", "72."),
        ("**Answer:** 72", "72"),
        ("answer: 1\nanswer: 2", "2"),
        (r"so we get \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"answer: \boxed{5}", "5"),
        (r"\boxed{4} and then answer: 5", "5"),
        (r"answer: 4 but \boxed{6}", "6"),
        ("some steps\n#### 1,234", "1,234"),
        ("answer: 9 7 1", "9 7 1"),
        ("72", None),
        ("answer:", None),
        (r"\boxed{unclosed", None),
        ("noanswer: 3", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("9*8=72\nanswer: 72", True),
        ("answer: 72\n", True),
        (r"It is $\boxed{72}$.", True),
        (r"answer: \boxed{72}", True),
        ("answer: 72\nanswer: 72", False),
        ("answer: 72\nas was to be shown", False),
        ("answer: ", False),
        ("72", False),
    ],
)
def test_follows_convention(text: str, follows: bool) -> None:
    assert follows_convention(text) is follows


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("72", "72.0", True),
        ("+1,250.50", "1250.5", True),
        ("007", "7", True),
        ("-0", "0", True),
        (".5", "0.5", True),
        ("72.", "72", True),
        ("$72$", "72", True),
        ("Blue  whale", "blue whale", True),
        ("100", "1", False),
        ("1 2", "12", False),
        ("-5", "5", False),
        ("12,34", "1234", False),
    ],
)
def test_same_answer(one: str, other: str, same: bool) -> None:
    assert same_answer(one, other) is same


def test_no_answer_is_never_the_same() -> None:
    assert not same_answer(None, "")


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.integers(-(10**12), 10**12))
def test_whole_numbers_read_back(number: int) -> None:
    assert normalise(f"{number:,}") == normalise(f"{number}.00") == str(number)
