"""Measures: from the record of one run to one number, by name, so that a claim can say (and a JSON file can repeat) what was measured.

    Final("eval/pass@1")                                  the last value
    Area("eval/pass@1")                                   the curve's mean height over the budget
    Average("rollout/entropy", last=0.25)                 the mean over the last quarter of the budget
    Total("signal/groups_trained") / Spent("rollouts")    measures are added, subtracted, multiplied and divided
    Attempts("length", where={"correct": 0})              over recorded attempts: here the length of wrong ones

Shares of a run (`last`) are shares of what its budget counts. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from etude.durable import JsonLines
from etude.errors import InputError, nearest
from etude.ledger import Budget, Ledger

Curve = tuple[list[float], list[float]]
"""What was spent at each measurement, and the finite values measured there."""


@dataclass
class Record:
    """What one run left behind, as measures read it.

    rows: lines of metrics.jsonl (`step`, metrics, `ledger`). budget: what the run was allowed; None for an experiment, whose results are one row.
    folder: where `trajectories.jsonl` lies, for measures over attempts.
    """

    rows: Sequence[Mapping[str, Any]]
    budget: Budget | None = None
    folder: Path | None = None
    name: str = "the run"

    @classmethod
    def of_values(cls, values: Mapping[str, float], name: str = "the experiment") -> Record:
        """The record of an experiment: named results, measured once."""
        return cls([{"step": 0, **values, "ledger": {}}], name=name)

    @property
    def unit(self) -> str:
        return self.budget.unit if self.budget is not None else "steps"

    def series(self, metric: str, over: str = "") -> Curve:
        """Every finite value of a metric in the order of the rows, with what had been spent when it was measured.

        over: a budget's unit (default: that of the run's own budget). Raises InputError when the metric was never measured.
        """
        counter = _counter(over or self.unit)
        found = [(counter.used(Ledger.from_plain(row.get("ledger", {}))), value) for row in self.rows if (value := _finite(row.get(metric))) is not None]
        if not found:
            known = sorted({name for row in self.rows for name in row} - {"step", "ledger"})
            raise InputError(
                f"{self.name} has no value of {metric!r}.{nearest(metric, known)} A measure reads metrics that the run logged; it logged: {', '.join(known)}"
            )
        return [x for x, _ in found], [y for _, y in found]

    def curve(self, metric: str, over: str = "") -> Curve:
        """The same with one value at each place: of several the last one counts (a step that spends nothing stays where it was)."""
        points = dict(zip(*self.series(metric, over), strict=True))
        return list(points), list(points.values())

    def spent(self, unit: str = "") -> float:
        """What the whole run spent, in a budget's unit."""
        return _counter(unit or self.unit).used(self.ledger)

    @property
    def ledger(self) -> Ledger:
        """The accounts at the end."""
        return Ledger.from_plain(self.rows[-1].get("ledger", {})) if self.rows else Ledger()

    def last_values(self) -> dict[str, float]:
        """The last finite value of everything that was evaluated (`eval/...`), or, of an experiment, everything that it measured."""
        found: dict[str, float] = {}
        for row in self.rows:
            wanted = {name: value for name, value in row.items() if name.startswith("eval/") or (self.budget is None and name != "step")}
            found |= {name: number for name, value in wanted.items() if (number := _finite(value)) is not None}
        return found

    @cached_property
    def attempts(self) -> list[tuple[float, Mapping[str, Any]]]:
        """Recorded trajectories, each with the share of the run that was done when it was sampled, in (0, 1]."""
        path = self.folder / "trajectories.jsonl" if self.folder is not None else None
        if path is None or not path.exists():
            raise InputError(f"{self.name} recorded no attempts; a measure over attempts needs runs with save_trajectories above 0")
        last = max((row["step"] for row in self.rows), default=0) or 1
        return [(record["step"] / last, record) for record in JsonLines(path)]


class Measure(ABC):
    """A number about one run. Call it with the run's `Record`."""

    @abstractmethod
    def __call__(self, record: Record) -> float:
        """The number. Raises InputError when the record does not hold what is measured."""

    @abstractmethod
    def __str__(self) -> str:
        """What is measured, for a person."""

    def metrics(self) -> list[str]:
        """Names of the logged metrics that this reads."""
        named = [getattr(self, "metric", None)] + [m for part in self._parts() for m in part.metrics()]
        return list(dict.fromkeys(name for name in named if name))

    def to_plain(self) -> dict[str, Any]:
        """As plain JSON values: the measure's name, its settings, and what it is composed of."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"measure": type(self).__name__} | {
            k: v.to_plain() if isinstance(v, Measure) else dict(v) if isinstance(v, Mapping) else v for k, v in values.items()
        }

    def _parts(self) -> list[Measure]:
        return [v for f in fields(self) if isinstance(v := getattr(self, f.name), Measure)]  # type: ignore[arg-type]

    def __add__(self, other: Measure | float) -> Measure:
        return Combined("+", self, measured(other))

    def __sub__(self, other: Measure | float) -> Measure:
        return Combined("-", self, measured(other))

    def __mul__(self, other: Measure | float) -> Measure:
        return Combined("×", self, measured(other))

    def __truediv__(self, other: Measure | float) -> Measure:
        return Combined("/", self, measured(other))


def measured(value: Measure | float) -> Measure:
    """A measure as it is; a number as the measure that always gives it."""
    return value if isinstance(value, Measure) else Constant(float(value))


@dataclass(frozen=True)
class Constant(Measure):
    """The same number for every run."""

    value: float

    def __call__(self, record: Record) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True)
class Combined(Measure):
    """Two measures of the same run, combined. Division by 0 gives NaN, which a claim refuses."""

    operation: Literal["+", "-", "×", "/"]
    left: Measure
    right: Measure

    def __call__(self, record: Record) -> float:
        a, b = self.left(record), self.right(record)
        if self.operation == "/":
            return a / b if b else math.nan
        return a + b if self.operation == "+" else a - b if self.operation == "-" else a * b

    def __str__(self) -> str:
        left, right = (f"({part})" if isinstance(part, Combined) else str(part) for part in (self.left, self.right))
        return f"{left} {self.operation} {right}"


@dataclass(frozen=True)
class First(Measure):
    """The first value: for held-out metrics that of the model as it came."""

    metric: str

    def __call__(self, record: Record) -> float:
        return record.series(self.metric)[1][0]

    def __str__(self) -> str:
        return f"first {self.metric}"


@dataclass(frozen=True)
class Final(Measure):
    """The last value."""

    metric: str

    def __call__(self, record: Record) -> float:
        return record.series(self.metric)[1][-1]

    def __str__(self) -> str:
        return f"final {self.metric}"


@dataclass(frozen=True)
class AtBudget(Measure):
    """The value when the budget was spent, interpolated between the measurements around it.

    A run ends after the step that spends the budget, so that a method of large steps overshoots more than one of small ones. This takes the advantage out.
    """

    metric: str

    def __call__(self, record: Record) -> float:
        from etude.evals.statistics import value_at

        x, y = record.curve(self.metric)
        return value_at(x, y, _end(record, ""))

    def __str__(self) -> str:
        return f"{self.metric} at the end of the budget"


def gain(metric: str) -> Measure:
    """The value at the end of the budget minus the first: what the run added."""
    return AtBudget(metric) - First(metric)


@dataclass(frozen=True)
class Average(Measure):
    """The mean of the values measured in the last share of the run. last: in (0, 1], of what the budget counts. The last value always belongs to it."""

    metric: str
    last: float = 1.0

    def __post_init__(self) -> None:
        _require_share(self.last, "Average")

    def __call__(self, record: Record) -> float:
        x, y = record.series(self.metric)
        values = _in_last(x, y, self.last, record.spent())
        return sum(values) / len(values)

    def __str__(self) -> str:
        return f"mean {self.metric}{_of_last(self.last)}"


@dataclass(frozen=True)
class Largest(Measure):
    """The largest value in the last share of the run."""

    metric: str
    last: float = 1.0

    def __post_init__(self) -> None:
        _require_share(self.last, "Largest")

    def __call__(self, record: Record) -> float:
        x, y = record.series(self.metric)
        return max(_in_last(x, y, self.last, record.spent()))

    def __str__(self) -> str:
        return f"largest {self.metric}{_of_last(self.last)}"


@dataclass(frozen=True)
class Deviation(Measure):
    """The standard deviation (n - 1) of the values in the last share of the run: how unsteady a metric is from step to step. Needs two values."""

    metric: str
    last: float = 1.0

    def __post_init__(self) -> None:
        _require_share(self.last, "Deviation")

    def __call__(self, record: Record) -> float:
        x, y = record.series(self.metric)
        values = _in_last(x, y, self.last, record.spent())
        if len(values) < 2:
            return math.nan
        mean = sum(values) / len(values)
        return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))

    def __str__(self) -> str:
        return f"standard deviation of {self.metric}{_of_last(self.last)}"


@dataclass(frozen=True)
class Total(Measure):
    """The sum over everything that was logged: for metrics that count."""

    metric: str

    def __call__(self, record: Record) -> float:
        return sum(record.series(self.metric)[1])

    def __str__(self) -> str:
        return f"total {self.metric}"


@dataclass(frozen=True)
class Area(Measure):
    """The mean height of a metric's curve over the budget: early progress counts as long as it lasts. In the metric's own unit.

    The curve is cut, or its last value held, at the budget, so that runs that overshot by part of a step are compared over the same range.
    """

    metric: str
    over: str = ""

    def __call__(self, record: Record) -> float:
        from etude.evals.statistics import area_under_curve

        x, y = record.curve(self.metric, self.over)
        return area_under_curve(x, y, until=_end(record, self.over))

    def __str__(self) -> str:
        return f"mean {self.metric} over {self.over or 'the budget'}"


@dataclass(frozen=True)
class Slope(Measure):
    """The least-squares slope of a metric over the last share of the run, per unit of `over`. NaN with fewer than two places."""

    metric: str
    over: str = "steps"
    last: float = 1.0

    def __post_init__(self) -> None:
        _require_share(self.last, "Slope")

    def __call__(self, record: Record) -> float:
        x, y = record.series(self.metric, self.over)
        first = (1 - self.last) * record.spent(self.over)
        points = [(a, b) for a, b in zip(x, y, strict=True) if a >= first]
        if len({a for a, _ in points}) < 2:
            return math.nan
        from statistics import linear_regression

        return linear_regression([a for a, _ in points], [b for _, b in points]).slope

    def __str__(self) -> str:
        return f"slope of {self.metric} over {self.over}{_of_last(self.last)}"


@dataclass(frozen=True)
class Reached(Measure):
    """What had been spent when a metric first reached a level, by interpolation; the whole budget where it never did, so that a miss counts as late."""

    metric: str
    level: float
    over: str = ""

    def __call__(self, record: Record) -> float:
        from etude.evals.statistics import budget_to_reach

        x, y = record.curve(self.metric, self.over)
        found = budget_to_reach(x, y, self.level)
        end = _end(record, self.over)
        return end if found is None else min(found, end)

    def __str__(self) -> str:
        return f"{self.over or 'budget'} until {self.metric} reached {self.level:g}"


@dataclass(frozen=True)
class Spent(Measure):
    """What the whole run spent, in a budget's unit (`tokens`, `rollouts`, `steps`, ...) or an entry of the ledger (`trained_tokens`, ...)."""

    what: str

    def __call__(self, record: Record) -> float:
        entries = record.ledger.to_plain()
        return float(entries[self.what]) if self.what in entries else record.spent(self.what)

    def __str__(self) -> str:
        return f"{self.what} spent"


@dataclass(frozen=True)
class Attempts(Measure):
    """The mean of a value over recorded training attempts (trajectories.jsonl) in a part of the run.

    value: an entry of the record (`length`, `correct`, `reward`) or of its `rewards`. where: entries and the values they must have.
    part: from which share of the run's steps to which. NaN when no attempt fits.
    """

    value: str
    where: Mapping[str, Any] = field(default_factory=dict)
    part: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.part[0] < self.part[1] <= 1:
            raise InputError(f"Attempts: part is {self.part}; expected two rising shares of the run, from 0 to 1")

    def __call__(self, record: Record) -> float:
        start, end = self.part
        chosen = [a for share, a in record.attempts if start < share <= end and all(_entry(a, name) == wanted for name, wanted in self.where.items())]
        values = [v for a in chosen if (v := _finite(_entry(a, self.value))) is not None]
        return sum(values) / len(values) if values else math.nan

    def __str__(self) -> str:
        conditions = " and ".join(f"{name} {wanted}" for name, wanted in self.where.items())
        part = "" if self.part == (0, 1) else f", {self.part[0]:.0%} to {self.part[1]:.0%} of the run"
        return f"mean {self.value} of attempts{f' with {conditions}' if conditions else ''}{part}"


def of_every(records: Iterable[Record], measure: Measure) -> list[float]:
    """The measure of each run. Raises InputError naming the run where it is not a finite number."""
    values = []
    for record in records:
        value = measure(record)
        if not math.isfinite(value):
            raise InputError(f"{measure} is {value} in {record.name}; expected a number. What is measured did not occur in this run, or was logged too seldom")
        values.append(value)
    return values


def as_text(measure: Measure) -> str:
    """The measure's plain form as one line of JSON."""
    return json.dumps(measure.to_plain(), ensure_ascii=False)


def _counter(unit: str) -> Budget:
    """What reads a unit off a ledger. Raises InputError for an unknown one."""
    return Budget.parse(f"1-{unit}")


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _entry(attempt: Mapping[str, Any], name: str) -> Any:
    return attempt[name] if name in attempt else attempt.get("rewards", {}).get(name)


def _end(record: Record, over: str) -> float:
    """Where a curve over `over` ends: at the budget where it counts that, else where the run ended."""
    same = record.budget is not None and over in ("", record.budget.unit)
    return record.budget.amount if record.budget is not None and same else record.spent(over)


def _in_last(x: Sequence[float], y: Sequence[float], last: float, whole: float) -> list[float]:
    first = (1 - last) * whole
    return [b for a, b in zip(x, y, strict=True) if a >= first] or [y[-1]]


def _of_last(last: float) -> str:
    return "" if last == 1 else f", last {last:.0%} of the run"


def _require_share(last: float, name: str) -> None:
    if not 0 < last <= 1:
        raise InputError(f"{name}: last is {last}; expected a share of the run, above 0 and at most 1")
