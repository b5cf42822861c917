"""What is reported of a tool's use, by hand."""

from __future__ import annotations

import pytest

from etude.evals.tools import tool_use
from etude.types import Message, Segment, Task, Trajectory


def attempt(correct: float, length: int, calls: int = 0, errors: int = 0) -> Trajectory:
    tags = {"tool_calls": calls, "tool_errors": errors} if calls else {}
    segment = Segment([1] * length, "policy", "x", trained=True)
    return Trajectory(Task("t", (Message("user", "?"),)), [], [segment], "environment", reward=correct, rewards={"correct": correct}, tags=tags)


def test_rates_are_over_calls_and_lengths_over_right_attempts() -> None:
    measured = tool_use([attempt(1, 10, calls=3, errors=1), attempt(1, 20, calls=1), attempt(1, 6), attempt(0, 50, calls=4, errors=3)])
    assert measured == pytest.approx(
        {"tool/calls": 2.0, "tool/error_rate": 4 / 8, "tool/error_rate_right": 1 / 4, "tool/free_right": 1 / 3, "tool/length_right": 12.0}
    )


def test_what_has_no_value_is_left_out() -> None:
    assert tool_use([attempt(1, 10), attempt(0, 10)]) == {}
    assert tool_use([attempt(0, 10, calls=2, errors=1)]) == {"tool/calls": 2.0, "tool/error_rate": 0.5}
    assert set(tool_use([attempt(1, 10), attempt(0, 10, calls=1)])) == {"tool/calls", "tool/error_rate", "tool/free_right", "tool/length_right"}
