"""What training verdicts adds to a model's knowledge of its own limits, from a start that was taught by imitation what it can do, how to write tasks, and to judge them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.evals.measures import Average, Final, First, Measure
from etude.experiments.imitate_first import imitate_first

MEASURED = ("accuracy", "balanced_accuracy", "f1", "ece", "feasible", "refusal", "over_refusal", "overconfidence", "consistency", "solvable")
"""Of `etude.evals.self_knowledge`, on held-out tasks against what the model solves of them."""


def trained_self_knowledge(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` after imitation of `settings["warm_tasks"]`; all other settings are the run's.

    Each name of MEASURED at the end, and with `_first` before the run. `solved_first`, `solved`: held-out pass@1. `intrinsic_first`, `intrinsic`: verdicts that agree with
    the claim, in the first step and over the last quarter; `unanimous`: share of groups in which all verdicts are the same, over the last quarter. What has no value (a
    model that gives no verdict has no P(feasible)) is left out.
    """
    record = imitate_first(seed, {"method": "knowrl", **settings}, budget)
    measures: dict[str, Measure] = {}
    for name in MEASURED:
        measures |= {name: Final(f"eval/self_{name}"), f"{name}_first": First(f"eval/self_{name}")}
    measures |= {
        "solved_first": First("eval/pass@1"),
        "solved": Final("eval/pass@1"),
        "intrinsic_first": First("intrinsic/accuracy"),
        "intrinsic": Average("intrinsic/accuracy", last=0.25),
        "unanimous": Average("intrinsic/unanimous", last=0.25),
    }
    logged = {name for row in record.rows for name, value in row.items() if value is not None}
    return {name: measure(record) for name, measure in measures.items() if logged.issuperset(measure.metrics())}
