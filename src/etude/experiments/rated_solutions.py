"""Whether a model learns to rate its own solutions, starting from one that was taught the form of a rating."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from etude.errors import InputError
from etude.evals.measures import AtBudget, First
from etude.experiments.imitate_first import imitate_first


def rated_solutions(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    Each before (`_first`) and at the end: `pass_rate`: held-out pass@1. `balanced`: balanced accuracy of the ratings of held-out solutions. `vote`, `rated_vote`: accuracy
    of the majority of four, plain and weighed by ratings. What has no value, as with a model that gives no ratings, is left out.
    """
    record = imitate_first(seed, settings, budget)
    found: dict[str, float] = {}
    for name, metric in {"pass_rate": "eval/pass@1", "balanced": "eval/verify_balanced", "vote": "eval/maj@4", "rated_vote": "eval/weighted_maj@4"}.items():
        for at, measure in {f"{name}_first": First(metric), name: AtBudget(metric)}.items():
            with suppress(InputError):
                found[at] = measure(record)
    return {name: value for name, value in found.items() if isfinite(value)}
