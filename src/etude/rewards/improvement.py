"""What a single step from one attempt to the next is worth."""

from __future__ import annotations

from typing import Literal

StepReturn = Literal["quality", "improvement", "better", "progress"]
"""quality: how good the new attempt is. improvement: by how much it is better than the one before, at least 0. better: 1 if it is right, 1/2 if it is only better, else 0.
progress: 1 if it is right or better, else 0."""
RIGHT = 1 - 1e-9
"""A quality from which nothing is left to improve."""


def step_return(quality: float, before: float | None, form: StepReturn) -> float:
    """The return of an attempt, in [0, 1].

    quality: of the new attempt, in [0, 1]; NaN, for what could not be judged, stays NaN. before: that of the attempt it began from; None for a first attempt, which has its
    quality as its return, with `better` half of it unless it is right.
    """
    if quality != quality:
        return quality
    if form == "better":
        if quality >= RIGHT:
            return 1.0
        return 0.5 * quality if before is None else 0.5 * (quality > before)
    if form == "progress" and before is not None:
        return float(quality >= RIGHT or quality > before)
    if form == "improvement" and before is not None:
        return min(1.0, max(0.0, quality - before))
    return quality


def scaled(reward: float, low: float, high: float) -> float:
    """A reward as a quality: 0 at `low` and below, 1 at `high` and above. The scale is the same for all groups, so that their variances compare. NaN stays."""
    return reward if reward != reward else min(1.0, max(0.0, (reward - low) / (high - low)))
