"""Each arm at its own best setting: values are tried on tuning seeds, none of which is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from etude.errors import EtudeError, InputError
from etude.evals.arm_text import value_text
from etude.evals.arms import Arm, ArmWatcher, run_arms
from etude.evals.statistics import value_at
from etude.ledger import Budget

Sweep = Mapping[str, Sequence[Any]]
"""The values to try, by option; of several options every combination is tried."""


@dataclass(frozen=True)
class Trial:
    """One arm with one choice of the swept options. values: the metric at the budget, one a tuning seed, None for a run that did not finish."""

    arm: str
    settings: dict[str, Any]
    seeds: list[int]
    values: list[float | None]
    chosen: bool = False

    @property
    def score(self) -> float:
        """Mean over the tuning seeds; NaN where a run did not finish, which rules the choice out."""
        return float(np.mean([math.nan if v is None else v for v in self.values]))

    def to_plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**vars(self), "score": self.score}


def choices(arm: Arm, sweep: Sweep) -> list[Arm]:
    """The arm with every combination of the swept options. Raises InputError when the arm sets one of them itself."""
    for name in sweep:
        if name in {option.replace("-", "_") for option in arm.settings}:
            raise InputError(f"the arm {arm.name} sets {name}, which the sweep is to choose; leave it out of one of them")
    found = []
    for values in product(*sweep.values()):
        settings = dict(zip(sweep, values, strict=True))
        title = ",".join(f"{name}={value_text(value)}" for name, value in settings.items())
        found.append(Arm(f"{arm.name} {title}", arm.method, {**arm.settings, **settings}))
    return found


def tune(
    arms: Sequence[Arm],
    sweep: Sweep,
    *,
    common: Mapping[str, Any],
    budget: str,
    seeds: Sequence[int],
    metric: str,
    lower_is_better: bool,
    folder: Path,
    workers: int = 0,
    watcher: ArmWatcher | None = None,
) -> tuple[list[Arm], list[Trial]]:
    """The arms at their best settings, and what was tried: the choice with the best mean final value over the tuning seeds, of equals the first.

    Raises InputError as `run_arms` does, EtudeError when an arm got through with no choice, and KeyboardInterrupt when the user stopped it.
    """
    candidates = {arm.name: choices(arm, sweep) for arm in arms}
    flat = [candidate for of_arm in candidates.values() for candidate in of_arm]
    runs = run_arms(flat, common=common, budget=budget, seeds=seeds, folder=folder, workers=workers, watcher=watcher)
    amount, unit = Budget.parse(budget).amount, Budget.parse(budget).unit
    values: dict[str, list[float | None]] = {candidate.name: [] for candidate in flat}
    for run in runs:
        x, y = run.curve(metric, unit)
        values[run.arm].append(value_at(x, y, amount) if run.status == "finished" and x else None)
    tuned, trials = [], []
    for arm in arms:
        of_arm = [
            Trial(arm.name, {name: candidate.settings[name] for name in sweep}, list(seeds), values[candidate.name]) for candidate in candidates[arm.name]
        ]
        best = best_of(of_arm, lower_is_better)
        trials += [replace(trial, chosen=trial is best) for trial in of_arm]
        tuned.append(Arm(arm.name, arm.method, {**arm.settings, **best.settings}))
    return tuned, trials


def best_of(trials: Sequence[Trial], lower_is_better: bool = False) -> Trial:
    """The best of one arm's trials. Raises EtudeError when none finished with all of its seeds."""
    sound = [trial for trial in trials if not math.isnan(trial.score)]
    if not sound:
        raise EtudeError(f"the sweep found no setting at which {trials[0].arm} gets through all of its tuning runs; look at their logs, or try other values")
    return min(sound, key=lambda t: t.score) if lower_is_better else max(sound, key=lambda t: t.score)


def edge_remarks(trials: Sequence[Trial], sweep: Sweep) -> list[str]:
    """Choices at the end of the values that were tried: a better one may lie beyond."""
    found = []
    for trial in trials:
        for name, values in sweep.items():
            numbers = [v for v in map(_number, values) if v is not None]
            value = _number(trial.settings[name])
            if trial.chosen and len(numbers) == len(values) and value in (min(numbers), max(numbers)):
                side = "smallest" if value == min(numbers) else "largest"
                found.append(f"{trial.arm} did best at the {side} {name} that was tried, {value_text(trial.settings[name])}: a better one may lie beyond.")
    return found


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
