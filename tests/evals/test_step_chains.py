"""Curves over steps of improvement."""

from __future__ import annotations

import pytest

from etude.evals.improvement import improvement_metrics, shown_steps
from etude.tasks.answers import final_answer
from etude.types import Message, Segment, Task, Trajectory

TASK = Task("t", (Message("user", "?"),))


def attempt(answer: int, correct: float, reward: float) -> Trajectory:
    return Trajectory(TASK, [], [Segment([1], "policy", f"answer: {answer}")], "eos", rewards={"correct": correct}, reward=reward)


def test_the_curve_and_what_a_chain_mended_and_spoilt() -> None:
    wrong, near, right = attempt(1, 0.0, 0.25), attempt(2, 0.0, 0.75), attempt(3, 1.0, 1.0)
    chains = [[wrong, near, near, right], [right, right, wrong, wrong], [wrong, right, right, right], [near, near, near, near]]
    metrics = improvement_metrics(chains, final_answer)
    assert [metrics[f"correct_after@{k}"] for k in (0, 1, 2, 3)] == [0.25, 0.5, 0.25, 0.5]
    assert [metrics[f"quality_after@{k}"] for k in (0, 3)] == pytest.approx([(0.25 + 1 + 0.25 + 0.75) / 4, (1 + 0.25 + 1 + 0.75) / 4])
    assert (metrics["chain_fixed"], metrics["chain_broken"], metrics["chain_delta"], metrics["chain_oracle_stop"]) == (0.5, 0.25, 0.25, 0.75)
    assert metrics["chain_changed"] == 0.75
    # Four of twelve steps exchange one character of the nine in either text.
    assert metrics["step_edit"] == pytest.approx(4 / 12 / 18)


def test_what_is_not_defined_is_left_out() -> None:
    metrics = improvement_metrics([[attempt(1, 1.0, 1.0)] * 2], final_answer)
    assert "chain_fix_rate" not in metrics
    assert metrics["chain_break_rate"] == 0.0
    assert improvement_metrics([], final_answer) == {}


def test_the_steps_that_are_shown() -> None:
    assert shown_steps(16) == [0, 1, 2, 4, 8, 16]
    assert shown_steps(5) == [0, 1, 2, 4, 5]
    assert shown_steps(0) == [0]
