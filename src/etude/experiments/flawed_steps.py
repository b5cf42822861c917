"""Runs of FAPO and of its judge, from models that were first taught by imitation what these start from.

The embedded model knows neither the sums of `max5` with their bins nor how a judge answers. So it is first shown work that is often wrong though its answer is right
(`max5:slips=...,jumps=...`), or judgements that are often wrong (`max5-flaws:slips=...`). From there the arms train, each on as much of its budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.evals.measures import AtBudget, Average, First, Record
from etude.evals.statistics import value_at
from etude.experiments.imitate_first import imitate_first


def sound_work(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """How many held-out attempts are sound (right, by right steps), right, and flawed (a share of the right ones): before, at half of the budget and at its end.

    `precision`, `recall`: the judge's, over the run; `refining`: share of groups in which flawed positives are pushed down, in the first step and the last quarter.
    Where no attempt was ever right, `flawed` is 1, and precision and recall are 0. All settings but `warm_...` are the run's.
    """
    record = imitate_first(seed, settings, budget)
    found = {}
    for name, metric in (("sound", "eval/sound"), ("right", "eval/pass@1"), ("flawed", "eval/flawed")):
        known = any(metric in row for row in record.rows)
        found |= (
            {f"{name}_first": First(metric)(record), f"{name}_half": _at(record, metric, 0.5), name: AtBudget(metric)(record)}
            if known
            else {f"{name}_first": 1.0, f"{name}_half": 1.0, name: 1.0}
        )
    for name in ("precision", "recall"):
        found[name] = Average(f"flaw/{name}")(record) if any(f"flaw/{name}" in row for row in record.rows) else 0.0
    return found | {
        "refining_first": First("flaw/refining")(record),
        "refining": Average("flaw/refining", last=0.25)(record),
    }


def first_wrong_steps(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """How well held-out flaws are found, before and at the end: `located`, `cleared`, `process_f1`, `recall`, `unreadable`, each also with `_first`."""
    record = imitate_first(seed, settings, budget)
    names = ("located", "cleared", "process_f1", "recall", "unreadable")
    return {f"{name}_first": First(f"eval/{name}")(record) for name in names} | {name: AtBudget(f"eval/{name}")(record) for name in names}


def _at(record: Record, metric: str, share: float) -> float:
    """A metric's value when a share of the budget was spent, interpolated between the measurements around that."""
    assert record.budget is not None
    x, y = record.curve(metric)
    return value_at(x, y, share * record.budget.amount)
