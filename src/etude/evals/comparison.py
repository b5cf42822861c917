"""What a comparison shows: each arm's value at the common budget, on the way there, and how far it is from the first arm's.

Runs overshoot their budget by part of a step, so that a value at the budget is read off the learning curve, by linear interpolation between the evaluations around it.
Seeds are the unit of every interval, and differences are taken seed by seed. An arm with a run that crashed or was interrupted has no mean: what its other seeds
reached would flatter it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from etude.durable import json_safe
from etude.errors import InputError
from etude.evals.arms import Arm, ArmRun, Status
from etude.evals.statistics import (
    Interval,
    area_under_curve,
    budget_to_reach,
    holm,
    mean_interval,
    minimum_detectable_difference,
    paired_difference,
    paired_p_value,
    value_at,
)
from etude.ledger import Budget

Better = Literal["higher", "lower"]
GRID = 33
"""Points that mean learning curves are drawn with."""


@dataclass(frozen=True)
class SeedResult:
    """One run. final: the metric at the budget; area: its mean height up to there; both None where the run did not finish. spent: in the budget's unit."""

    seed: int
    status: Status
    error: str | None
    folder: Path
    final: float | None
    area: float | None
    reached: float | None
    """Budget at which its own curve comes to the first arm's mean final level; None when not within the budget, or when there is no such level."""
    spent: float
    steps: int
    seconds: float
    x: list[float] = field(repr=False)
    y: list[float] = field(repr=False)


@dataclass(frozen=True)
class Difference:
    """An arm minus the first arm, over the seeds that both have. p_value: two-sided, of the final values, corrected for the number of arms (Holm).

    detectable: the difference that this many seeds would show four times in five. It takes the spread of these differences, and is a guess as rough as that.
    """

    final: Interval
    area: Interval
    pairs: int
    p_value: float
    detectable: float


@dataclass(frozen=True)
class MeanCurve:
    """Mean over seeds of the learning curve on a grid of budgets, with 95 % intervals, infinite where nothing can be said."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class ArmResult:
    """One arm. What needs all of its seeds is None when one of them did not finish."""

    arm: Arm
    seeds: list[SeedResult]
    final: Interval | None
    area: Interval | None
    curve: MeanCurve | None
    difference: Difference | None
    """To the first arm; None for the first arm itself."""
    reach: float | None
    """Budget at which the mean curve comes to the first arm's mean final value; None when it never does."""

    @property
    def failed(self) -> list[SeedResult]:
        """The runs that did not finish."""
        return [seed for seed in self.seeds if seed.status != "finished"]

    @property
    def finals(self) -> list[float]:
        return [seed.final for seed in self.seeds if seed.final is not None]


@dataclass
class Comparison:
    """Arms at equal budget. The first arm is what the others are compared with.

    target: the first arm's mean final value. remarks: what deserves a look before the numbers are believed. settings: what all arms share. tuning: what a sweep
    tried and chose. Plain facts about how it was made are in `made`.
    """

    metric: str
    budget: Budget
    lower_is_better: bool
    arms: list[ArmResult]
    target: float | None
    remarks: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    tuning: list[dict[str, Any]] = field(default_factory=list)
    command: str = ""
    made: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def seeds(self) -> list[int]:
        """All seeds of all arms, ascending."""
        return sorted({seed.seed for arm in self.arms for seed in arm.seeds})

    def __getitem__(self, name: str) -> ArmResult:
        """The result of the arm of that name. Raises KeyError."""
        for result in self.arms:
            if result.arm.name == name:
                return result
        raise KeyError(name)

    def to_plain(self) -> dict[str, Any]:
        """Everything as plain JSON values; infinite ends of intervals are null."""
        values = {
            **{name: getattr(self, name) for name in ("command", "metric", "lower_is_better", "target", "seeds", "remarks", "settings", "tuning", "made")},
            "budget": str(self.budget),
            "unit": self.budget.unit,
            "arms": [_plain(asdict(arm)) for arm in self.arms],
        }
        return json_safe(values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def compare_curves(arms: Sequence[Arm], runs: Sequence[ArmRun], *, metric: str, budget: Budget, lower_is_better: bool = False) -> Comparison:
    """The comparison of runs that were made: pure arithmetic on their rows.

    runs: all runs of all arms. Raises InputError when a finished run never measured the metric.
    """
    results: dict[str, list[SeedResult]] = {arm.name: [] for arm in arms}
    for run in runs:
        results[run.arm].append(_seed_result(run, metric, budget))
    first = results[arms[0].name]
    target = float(np.mean([_known(seed.final) for seed in first])) if _complete(first) else None
    better: Better = "lower" if lower_is_better else "higher"
    found = []
    for arm in arms:
        seeds = [_with_reach(seed, target, better, budget) for seed in sorted(results[arm.name], key=lambda s: s.seed)]
        found.append(_arm_result(arm, seeds, first if arm.name != arms[0].name else None, target, better, budget))
    p_values = {a.arm.name: a.difference.p_value for a in found if a.difference is not None and math.isfinite(a.difference.p_value)}
    corrected = holm(p_values) if p_values else {}
    found = [_with_p_value(a, corrected.get(a.arm.name, math.nan)) for a in found]
    return Comparison(metric, budget, lower_is_better, found, target, _remarks(found, metric, budget))


def _complete(seeds: Sequence[SeedResult]) -> bool:
    return bool(seeds) and all(seed.final is not None for seed in seeds)


def _seed_result(run: ArmRun, metric: str, budget: Budget) -> SeedResult:
    x, y = run.curve(metric, budget.unit)
    final = area = None
    if run.status == "finished":
        if not x:
            measured = sorted({name for row in run.rows for name in row if "/" in name and not name.endswith(("_low", "_high"))})
            raise InputError(f"{run.folder} never measured {metric}; expected one of {', '.join(measured) or 'none: it has no measurements'}")
        final, area = value_at(x, y, budget.amount), area_under_curve(x, y, until=budget.amount)
    ledger = run.ledger
    return SeedResult(run.seed, run.status, run.error, run.folder, final, area, None, run.spent(budget.unit), ledger.steps, ledger.seconds, x, y)


def _with_reach(seed: SeedResult, target: float | None, better: Better, budget: Budget) -> SeedResult:
    if target is None or seed.final is None:
        return seed
    reached = budget_to_reach(seed.x, seed.y, target, better=better)
    return replace(seed, reached=reached if reached is not None and reached <= budget.amount else None)


def _arm_result(arm: Arm, seeds: list[SeedResult], first: list[SeedResult] | None, target: float | None, better: Better, budget: Budget) -> ArmResult:
    if not _complete(seeds):
        return ArmResult(arm, seeds, None, None, None, None, None)
    final = mean_interval([_known(seed.final) for seed in seeds])
    area = mean_interval([_known(seed.area) for seed in seeds])
    curve = _mean_curve(seeds, budget)
    reach = budget_to_reach(curve.x, curve.mean, target, better=better) if target is not None else None
    return ArmResult(arm, seeds, final, area, curve, _difference(seeds, first) if first is not None and _complete(first) else None, reach)


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _difference(seeds: Sequence[SeedResult], first: Sequence[SeedResult]) -> Difference | None:
    control = {seed.seed: seed for seed in first}
    pairs = [(seed, control[seed.seed]) for seed in seeds if seed.seed in control]
    if not pairs:
        return None
    finals = [_known(a.final) for a, _ in pairs], [_known(b.final) for _, b in pairs]
    areas = [_known(a.area) for a, _ in pairs], [_known(b.area) for _, b in pairs]
    many = len(pairs) > 1
    spread = float(np.std(np.subtract(*finals), ddof=1)) if many else math.inf
    return Difference(
        final=paired_difference(*finals),
        area=paired_difference(*areas),
        pairs=len(pairs),
        p_value=paired_p_value(*finals, alternative="two-sided") if many else math.nan,
        detectable=minimum_detectable_difference(spread, len(pairs), alternative="two-sided") if many else math.inf,
    )


def _with_p_value(result: ArmResult, p_value: float) -> ArmResult:
    if result.difference is None:
        return result
    return replace(result, difference=replace(result.difference, p_value=p_value))


def _mean_curve(seeds: Sequence[SeedResult], budget: Budget) -> MeanCurve:
    grid = np.linspace(0, budget.amount, GRID).tolist()
    points = [mean_interval([value_at(seed.x, seed.y, at) for seed in seeds]) for at in grid]
    return MeanCurve(grid, [p.estimate for p in points], [p.low for p in points], [p.high for p in points])


def _remarks(arms: Sequence[ArmResult], metric: str, budget: Budget) -> list[str]:
    found = []
    for result in arms:
        name = result.arm.name
        found += [f"{name}, seed {s.seed}, {'crashed' if s.status == 'crashed' else 'was interrupted'}: {s.error}" for s in result.failed]
        if result.failed:
            found.append(f"{name} has no mean: {len(result.failed)} of {len(result.seeds)} runs did not finish, and an average of the others would flatter it.")
        short = [seed for seed in result.seeds if seed.final is not None and seed.spent < 0.999 * budget.amount]
        if short:
            least = min(seed.spent for seed in short) / budget.amount
            found.append(
                f"{name} ended by its steps before the budget was spent ({len(short)} of {len(result.seeds)} runs, from {100 * least:.0f} % of it on); "
                "its last value is taken to stand."
            )
    if arms[0].failed:
        found.append(f"There are no differences: {arms[0].arm.name}, which the others are compared with, did not finish.")
    if max(len(result.seeds) for result in arms) < 2:
        found.append("One seed a run shows no spread, so that there are no intervals: whether a difference is chance cannot be said.")
    elif any(r.difference is not None and r.difference.pairs < len(r.seeds) for r in arms):
        found.append("Arms have different seeds: differences are taken over the seeds that both arms have.")
    starts = {round(seed.y[0], 12) for result in arms for seed in result.seeds if seed.x and seed.x[0] == 0}
    if len(starts) > 1 and metric.startswith("eval/"):
        found.append(
            f"Before the first step the runs measured different values of {metric} ({', '.join(f'{v:.4g}' for v in sorted(starts)[:4])}): "
            "they did not begin with the same weights and the same held-out tasks."
        )
    return found
