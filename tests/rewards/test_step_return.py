"""Returns of single steps, by hand."""

from __future__ import annotations

import math

import pytest

from etude.rewards.improvement import StepReturn, scaled, step_return


@pytest.mark.parametrize(
    ("form", "before", "now", "earned"),
    [
        ("quality", None, 0.4, 0.4),
        ("quality", 0.9, 0.4, 0.4),
        ("improvement", None, 0.4, 0.4),
        ("improvement", 0.25, 0.75, 0.5),
        ("improvement", 0.9, 0.4, 0.0),
        ("better", None, 0.4, 0.2),
        ("better", None, 1.0, 1.0),
        ("better", 0.4, 0.5, 0.5),
        ("better", 0.4, 0.4, 0.0),
        ("better", 1.0, 1.0, 1.0),
        ("better", 1.0, 0.9, 0.0),
        ("progress", None, 0.4, 0.4),
        ("progress", 0.4, 0.5, 1.0),
        ("progress", 0.4, 0.4, 0.0),
        ("progress", 1.0, 1.0, 1.0),
        ("progress", 1.0, 0.9, 0.0),
    ],
)
def test_what_a_step_is_worth(form: StepReturn, before: float | None, now: float, earned: float) -> None:
    assert step_return(now, before, form) == pytest.approx(earned)
    assert math.isnan(step_return(math.nan, before, form))


def test_rewards_are_put_on_one_scale() -> None:
    assert [scaled(reward, -1.0, 3.0) for reward in (-2.0, -1.0, 1.0, 3.0, 5.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert math.isnan(scaled(math.nan, 0.0, 1.0))
