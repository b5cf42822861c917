"""Learning rates against numbers worked out by hand, and what holds for every schedule."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.models.schedule import check_schedule, rate_factor


def factors(schedule: Any, steps: int, parts: int = 1, *, warmup: int, total: int) -> list[float]:
    return [rate_factor(schedule, s, p, parts, warmup=warmup, total=total) for s in range(steps) for p in range(parts)]


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 4, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1]),
        ("constant", 0, [1, 1, 1, 1, 1, 1, 1]),
        # From 1 to 0 over the four steps from 2 to 6; at 0 from there on.
        ("linear", 2, [1 / 2, 1, 1, 3 / 4, 2 / 4, 1 / 4, 0]),
        # (1 + cos(pi x)) / 2 at x = 0, 1/4, 1/2, 3/4, 1.
        ("cosine", 2, [1 / 2, 1, 1, 0.8535534, 0.5, 0.1464466, 0]),
    ],
)
def test_worked_values(schedule: Any, warmup: int, expected: list[float]) -> None:
    assert factors(schedule, 7, warmup=warmup, total=6) == pytest.approx(expected)


def test_optimiser_steps_within_a_step_of_the_loop() -> None:
    # Warm-up in quarters to the end of its one step, then down by eighths over the four steps that are left.
    assert factors("linear", 3, 4, warmup=1, total=3) == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


@given(schedule=st.sampled_from(["constant", "linear", "cosine"]), warmup=st.integers(0, 12), total=st.integers(1, 30), parts=st.integers(1, 4))
def test_no_step_of_a_run_is_wasted_and_the_rate_rises_then_falls(schedule: Any, warmup: int, total: int, parts: int) -> None:
    values = factors(schedule, total, parts, warmup=warmup, total=total)
    assert all(0 < v <= 1 for v in values)
    rising, falling = values[: warmup * parts], values[warmup * parts :]
    assert all(a < b for a, b in pairwise(rising))
    assert all(a >= b for a, b in pairwise(falling))
    assert falling[:1] in ([], [1.0])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_fall_without_an_end_is_refused(schedule: Any) -> None:
    with pytest.raises(InputError, match=f"'{schedule}' falls to 0 over 0 steps; expected at least 1"):
        check_schedule(schedule, 0)
    check_schedule(schedule, 1)
    check_schedule("constant", 0)
