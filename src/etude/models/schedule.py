"""How the learning rate goes over a run, as a function of how far the run is. Nothing of it has to be saved."""

from __future__ import annotations

import math
from typing import Literal

from etude.errors import InputError

Schedule = Literal["constant", "linear", "cosine"]


def rate_factor(schedule: Schedule, step: int, part: int = 0, parts: int = 1, *, warmup: int, total: int) -> float:
    """What to multiply the learning rate by, in [0, 1], at optimiser step `part` of the `parts` that step `step` of the loop takes; both count from 0.

    Warm-up rises in equal parts and ends at 1: over `warmup` steps of one optimiser step each by 1/warmup, 2/warmup, ..., 1, so that no step is wasted on a rate
    of 0. Then `linear` and `cosine` fall from 1 to 0, which they reach when step `total` would begin; `constant` stays.
    """
    if step < warmup:
        return (step + (part + 1) / parts) / warmup
    if schedule == "constant":
        return 1.0
    done = min(1.0, (step + part / parts - warmup) / max(1, total - warmup))
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def scaled_rate(rate: float, batch: int, reference: int) -> float:
    """A learning rate that was chosen for batches of `reference`, for batches of another size: times the square root of their ratio.

    A mean over k times as many samples has 1/k of the noise's variance, so that steps sqrt(k) times as long do not add to it (arXiv:1404.5997, section 5).
    """
    return rate * math.sqrt(batch / reference)


def check_schedule(schedule: Schedule, total: int) -> None:
    """Raises InputError for a schedule that falls towards an end which is not given: its rate would be 0 from the start."""
    if schedule != "constant" and total < 1:
        raise InputError(
            f"the schedule {schedule!r} falls to 0 over {total} steps; expected at least 1: say how many there will be, or use the schedule 'constant'"
        )
