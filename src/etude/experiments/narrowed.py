"""Whether rounds of imitation go on from where earlier ones have narrowed a policy, so that it finds little that is new at the temperature that it was trained at."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from etude.errors import InputError
from etude.evals.measures import AtBudget, Average, First
from etude.experiments.imitate_first import imitate_first

EVALUATED = ("pass@1", "pass@4", "pass@16", "several_ways", "right_ways", "distinct")


def narrowed(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]` that starts from what `warm_method` made of the model; see `imitate_first`.

    Of evaluations, before (`_first`) and at the end: pass@k, and what `etude.evals.monitors.exploration` says of the attempts. Of rounds, as means: the `temperature` that
    was chosen, examples `kept` of a task, and different right answers that were `found` to one. What was not measured is left out.
    """
    record = imitate_first(seed, settings, budget)
    wanted = {f"{name}_first": First(f"eval/{name}") for name in EVALUATED} | {name: AtBudget(f"eval/{name}") for name in EVALUATED}
    wanted |= {"temperature": Average("balance/temperature"), "kept": Average("balance/kept"), "found": Average("explore/right_ways")}
    values: dict[str, float] = {}
    for name, measure in wanted.items():
        with suppress(InputError):
            values[name] = measure(record)
    return values
