"""Whether a policy improves its answers over many steps at test time, starting from a model that was taught the form of a step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from etude.errors import InputError
from etude.evals.measures import Average, Final, First
from etude.experiments.imitate_first import imitate_first

SHOWN = (0, 4, 16)
"""Steps of improvement after which answers are measured, where the run takes so many."""


def iterated_improvement(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    At the end: `exact_K`, `quality_K`: share of right answers and mean reward after K steps of improvement (a run of fewer than 16 gives its last as 16). `depth`: mean
    depth of all starts. Before the first step: `format_first`; `edit_first`, how much a step changes; and `gain_first`, right
    answers after all steps less those before.
    """
    record = imitate_first(seed, settings, budget)
    last = int(settings.get("improve_steps", SHOWN[-1]))
    found: dict[str, float] = {}
    for k in SHOWN:
        for name, metric in {"exact": "correct_after", "quality": "quality_after"}.items():
            found[f"{name}_{k}"] = Final(f"eval/{metric}@{min(k, last)}")(record)
    found["gain_first"] = First(f"eval/correct_after@{last}")(record) - First("eval/correct_after@0")(record)
    for name, measure in {"format_first": First("eval/format"), "edit_first": First("eval/step_edit"), "depth": Average("start/depth")}.items():
        with suppress(InputError):
            found[name] = measure(record)
    return {name: value for name, value in found.items() if isfinite(value)}
