"""Self-training on solutions that a search found, from a policy that makes mistakes; and what the value model is worth in a search afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.evals.measures import Average, Final, First, Measure, Record, Spent
from etude.experiments.imitate_first import started_warm
from etude.ledger import Budget

SEARCHED = ("searched_tasks", "searched_tokens")
"""Settings that are the search's afterwards, and not the run's."""


def step_search(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    `pass_rate`, `sound`: held-out accuracy at temperature 1, and the share of attempts that are right by right steps alone; with `_first` before the run. `flawed`: share of
    what was imitated that has a wrong step, as the mean over rounds, 0 where nothing was. `told_apart`: how often the value model put a right step above a wrong one of the
    same depth, as the mean over rounds. `generated`: thousands of tokens that the policy wrote. With `searched_tasks`
    above 0, and a run that trains a value model, of the policy that the run began with and the value model of its end: `search_WAY`, `search_WAY_sound` and
    `search_WAY_tokens`, on so many held-out tasks with `searched_tokens` each.
    """
    own = {name: value for name, value in settings.items() if name not in SEARCHED}
    with started_warm(seed, {**own, "export": "last"}, budget) as (start, run):
        record = Record(run.metrics(), Budget.parse(budget), name=f"{settings['method']}, seed {seed}")
        values = run.folder / "model" / "value"
        found = searched(start, values, settings, seed) if settings.get("searched_tasks") and values.is_dir() else {}
    measures: dict[str, Measure] = {
        "generated": Spent("generated_tokens"),
        "flawed": Average("round/flawed", last=1.0),
        "told_apart": Average("value/told_apart", last=1.0),
    }
    for name, metric in {"pass_rate": "eval/pass@1", "sound": "eval/sound"}.items():
        measures |= {f"{name}_first": First(metric), name: Final(metric)}
    for name, measure in measures.items():
        with suppress(InputError):
            found[name] = measure(record)
    found = {"flawed": 0.0} | found
    found["generated"] /= 1000
    return {name: value for name, value in found.items() if isfinite(value)}


def searched(start: Path, value_model: Path, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """What each way makes of the same tokens, with a policy and a value model."""
    from etude.api import step_search as measured
    from etude.search.step_settings import StepSearchMeasureConfig
    from etude.settings import with_settings

    shared = {name: settings[name] for name in SEARCH_OPTIONS if name in settings}
    asked = {"tasks": settings["tasks"], "tasks_limit": settings["searched_tasks"], "search_tokens": settings["searched_tokens"], "seed": seed, "threads": 1}
    config = with_settings(StepSearchMeasureConfig(), {**shared, **asked, "value_model": str(value_model)})
    found: dict[str, float] = {}
    for report in measured(str(start), config):
        name = f"search_{report.way.replace('-', '_')}"
        found |= {name: report.accuracy, f"{name}_tokens": sum(report.tokens) / len(report.tokens)}
        found |= {f"{name}_sound": report.sound} if report.sound is not None else {}
    return found


SEARCH_OPTIONS = ("branch", "step_retries", "roll_branch", "roll_steps", "blend", "exploration", "unvisited", "end_gate", "max_steps")
"""Options of the search that are the same in the run and afterwards."""
