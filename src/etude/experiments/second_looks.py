"""What a method makes of second looks, from a model that can check its answers and was taught by imitation to repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.evals.measures import Average, Final, First, Measure
from etude.experiments.imitate_first import imitate_first, shared_folder, taught_start

CHECKED, SAMPLES = 128, 8
"""Held-out tasks that the start's written checks are counted on, and episodes of each: checks may be rare."""
HELD_OUT = ("correct@1", "correct@2", "delta", "fixed", "broken", "fix_rate", "break_rate", "changed")
"""Of `etude.evals.revision`, at the temperature of the run's evaluations."""


def second_looks(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    Each name of HELD_OUT at the end, and with `_first` before the run. `practised@1`, `practised@2`, `practised_changed`: the same of the training episodes of the last
    quarter. `written_first`: share of the start's second answers that show work, at temperature 1; `worked_first`: accuracy of those. What has no value is left out.
    """
    with shared_folder() as folder:
        written, worked = written_checks(taught_start(seed, settings, folder), str(settings["tasks"]))
    record = imitate_first(seed, settings, budget)
    measures: dict[str, Measure] = {}
    for name in HELD_OUT:
        measures |= {name: Final(f"eval/{name}"), f"{name}_first": First(f"eval/{name}")}
    for name in ("correct@1", "correct@2", "changed"):
        measures[f"practised{name.removeprefix('correct').replace('changed', '_changed')}"] = Average(f"revision/{name}", last=0.25)
    found = {"written_first": written, "worked_first": worked}
    for name, measure in measures.items():
        with suppress(InputError):
            found[name] = measure(record)
    return {name: value for name, value in found.items() if isfinite(value)}


def written_checks(model: Path, tasks: str) -> tuple[float, float]:
    """How many of a model's second answers to held-out tasks hold an equation, as a share, and the accuracy of those (0 where none does)."""
    from etude.evals.evaluate import evaluate
    from etude.models.language import LanguageModel
    from etude.tasks.loading import load_tasks

    task_set = load_tasks(tasks)
    evaluation = evaluate(LanguageModel.load(str(model)), task_set, tasks=list(task_set.held_out())[:CHECKED], samples=SAMPLES)
    attempts = [t for row in evaluation.trajectories for t in row]
    written = [t.correct for t in attempts if "=" in t.last_text]
    return len(written) / len(attempts), sum(written) / len(written) if written else 0.0
