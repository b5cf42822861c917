"""What changed on the held-out split, with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from etude.viewer.numbers import is_share, number
from etude.viewer.record import RunRecord

Verdict = Literal["up", "down", "same", "unknown"]


@dataclass(frozen=True)
class Change:
    """One held-out metric, first measurement against last.

    `low`/`high` pairs are 95 % intervals, NaN where none was recorded. The difference's interval adds both half-widths in quadrature, as for independent
    measurements; both were made on the same tasks, so it is if anything too wide.
    """

    name: str
    before_step: int
    after_step: int
    before: tuple[float, float, float]
    after: tuple[float, float, float]

    @property
    def difference(self) -> float:
        return self.after[0] - self.before[0]

    @property
    def margin(self) -> float:
        """Half-width of the difference's 95 % interval, NaN when unknown."""
        return math.hypot((self.before[2] - self.before[1]) / 2, (self.after[2] - self.after[1]) / 2)

    @property
    def verdict(self) -> Verdict:
        """`up` or `down` when the interval of the difference excludes zero, `same` when it does not, `unknown` without an interval."""
        if math.isnan(self.margin):
            return "unknown"
        if abs(self.difference) <= self.margin:
            return "same"
        return "up" if self.difference > 0 else "down"


def change_of(record: RunRecord, name: str) -> Change | None:
    """How a held-out metric changed from its first to its last measurement; None when it was measured fewer than two times."""
    steps, _ = record.series(name)
    if len(steps) < 2:
        return None
    return Change(name, steps[0], steps[-1], measured(record, name, steps[0]), measured(record, name, steps[-1]))


def measured(record: RunRecord, name: str, step: int) -> tuple[float, float, float]:
    """Value, lower and upper end of the 95 % interval of a metric at a step; NaN where not recorded."""
    row = record.steps.get(step, {})
    return row.get(name, math.nan), row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)


def changes(record: RunRecord) -> list[Change]:
    """All held-out metrics that were measured at least twice, in the order a reader wants them."""
    order = [*(f"eval/pass@{k}" for k in record.ks()), *(f"eval/maj@{k}" for k in record.ks("maj"))]
    order += [
        "eval/score",
        "eval/return",
        "eval/success",
        "eval/reward",
        "eval/format",
        "eval/length",
        "eval/length_right",
        "eval/length_wrong",
        "eval/entropy",
    ]
    return [c for c in (change_of(record, name) for name in order) if c is not None]


def difference_text(change: Change) -> str:
    """'+44.1 ± 6.2 points' for shares, '+1.3' otherwise."""
    sign = "+" if change.difference >= 0 else "−"
    if is_share(change.name):
        margin = "" if math.isnan(change.margin) else f" ± {100 * change.margin:.1f}"
        return f"{sign}{100 * abs(change.difference):.1f}{margin} points"
    margin = "" if math.isnan(change.margin) else f" ± {number(change.margin)}"
    return f"{sign}{number(abs(change.difference))}{margin}"
