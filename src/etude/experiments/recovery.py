"""Whether an agent finds back from failures, starting from one that was taught by experts who err and then repeat themselves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from etude.errors import InputError
from etude.evals.measures import Final, First
from etude.experiments.imitate_first import imitate_first


def recovery(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    Each before (`_first`) and at the end: `success`: held-out pass@1. `recovered`, `revision_score`: of failed episodes that are taken over after their first turns, the
    share that succeeds, and the mean reward. `run_length`: mean length of runs of equal actions. `revised_after`: turns from the first wrong one to a change of mind.
    `cut_precision`: share of the judge's cuts in the first round that are behind the first wrong step, 0 where it made none. What has no value is left out.
    """
    record = imitate_first(seed, settings, budget)
    found = {"cut_precision": 0.0}
    names = {"success": "eval/pass@1"} | {name: f"eval/{name}" for name in ("recovered", "revision_score", "run_length", "revised_after")}
    for name, metric in names.items():
        for at, measure in {f"{name}_first": First(metric), name: Final(metric)}.items():
            with suppress(InputError):
                found[at] = measure(record)
    with suppress(InputError):
        found["cut_precision"] = First("judge/precision")(record)
    return {name: value for name, value in found.items() if isfinite(value)}
