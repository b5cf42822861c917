"""How much is kept of each task, and whether that is many and good at once: the balance of exploration and exploitation of B-STaR (arXiv:2412.17256)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from etude.curation.keep import distinct, rewarded
from etude.evals.monitors import RIGHT
from etude.types import Trajectory, mean


def best_first(attempts: Sequence[Trajectory]) -> list[Trajectory]:
    """The different ones of some attempts at a task, highest reward first. Texts that differ in white space or case alone are the same; unjudged attempts are left out."""
    judged = [t for t in attempts if not math.isnan(t.reward)]
    return distinct(sorted(judged, key=lambda t: -t.reward), key=_written)


def filled_evenly(rows: Sequence[Sequence[Trajectory]], above: float, wanted: int, most: int) -> list[list[Trajectory]]:
    """What is kept of each task's attempts: the first of those with a reward above a threshold, equally many of every task that has them.

    rows: a task's attempts, best first. That number is the smallest with which there are `wanted` in all, and at most `most`: easy tasks do not crowd out hard ones.
    """
    good = [rewarded(row, above) for row in rows]
    cap = next((m for m in range(1, most) if sum(min(m, len(row)) for row in good) >= wanted), most)
    return [row[:cap] for row in good]


@dataclass(frozen=True)
class Balance:
    """What was kept, as means over tasks, each in [0, 1]. quantity: right examples as a share of those wanted. quality: share of the kept ones that is right.
    score: the mean of their product."""

    score: float
    quantity: float
    quality: float


def balance(kept: Sequence[Sequence[Trajectory]], wanted: int) -> Balance:
    """The balance score: min(right / wanted, 1) * right / kept of each task, 0 where nothing was kept, as the mean over tasks.

    kept: a row a task, of different attempts. wanted: right ones of a task with which it has enough. NaN without tasks.
    """
    right = [sum(t.correct >= RIGHT for t in row) for row in kept]
    quantity = [min(count / wanted, 1.0) for count in right]
    quality = [count / len(row) if row else 0.0 for count, row in zip(right, kept, strict=True)]
    return Balance(mean([a * b for a, b in zip(quantity, quality, strict=True)]), mean(quantity), mean(quality))


def _written(trajectory: Trajectory) -> str:
    return " ".join(" ".join(s.text for s in trajectory.segments if s.trained).split()).casefold()
