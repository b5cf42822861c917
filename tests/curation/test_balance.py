"""How many and how good examples are kept of each task, by hand."""

from __future__ import annotations

import math

import pytest

from etude.curation import balance, best_first, filled_evenly
from etude.types import Message, Segment, Task, Trajectory


def attempt(reward: float, text: str = "x", correct: float = 1.0) -> Trajectory:
    segment = Segment([5], "policy", text, trained=True)
    return Trajectory(Task("t", (Message("user", "x"),)), [1], [segment], "eos", reward=reward, rewards={"correct": correct})


def test_the_best_of_different_attempts_come_first() -> None:
    low, high = attempt(0.2, "a b"), attempt(1.0, "A  b\n")
    other, unjudged = attempt(0.5, "c"), attempt(math.nan, "d")
    assert best_first([low, other, unjudged, high]) == [high, other]


def test_every_task_gives_equally_many_until_there_are_enough() -> None:
    rows = [[attempt(r) for r in (1.2, 1.0, 1.0, 0.8, 0.8)], [attempt(r) for r in (1.0, -0.2)], []]
    assert [len(row) for row in filled_evenly(rows, 0.0, wanted=4, most=64)] == [3, 1, 0]
    assert [len(row) for row in filled_evenly(rows, 0.0, wanted=2, most=64)] == [1, 1, 0]
    assert [len(row) for row in filled_evenly(rows, -0.3, wanted=4, most=64)] == [2, 2, 0]
    assert filled_evenly(rows, 0.9, wanted=99, most=2) == [rows[0][:2], rows[1][:1], []]


def test_the_balance_score_by_hand() -> None:
    right, wrong = attempt(1.0), attempt(-0.1, correct=0.0)
    kept = [[right] * 2 + [wrong] * 2, [right] * 6, [], [wrong], [right]]
    # With 4 wanted: 2/4 * 2/4, 1 * 1, nothing kept, nothing right, 1/4 * 1.
    found = balance(kept, 4)
    assert (found.score, found.quantity, found.quality) == pytest.approx(((0.25 + 1 + 0 + 0 + 0.25) / 5, (0.5 + 1 + 0.25) / 5, (0.5 + 1 + 1) / 5))
