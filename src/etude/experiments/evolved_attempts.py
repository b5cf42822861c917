"""Attempts that are made out of earlier ones, and as many independent ones, on simulated repairs (`etude.tasks.decisions`).

One call is one whole search by `se-agent`, with the scripted model that the tasks bring behind the interfaces of any other model: the same episodes, summaries, guidance,
scores and choice as with a real one. Only what a finding or a decision is worth is set.

Measures: `success`, the share of tasks that the attempt which was settled on solves; `any`, that any attempt solves; `attempt`, the mean over attempts; `attempts` and
`calls`, a task; `right_findings`, the share of findings that are right; `gain_OPERATOR`, how much higher an attempt scores than those that it was made out of.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.driver import drive
from etude.method import get_method
from etude.run import Run
from etude.settings import build_config
from etude.settings_file import saved_form

SLUG = "se-agent"


def evolved_attempts(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """One search. settings: options of `se-agent`. budget: as of a run, in calls of models over all tasks. Raises InputError as a run does."""
    with tempfile.TemporaryDirectory() as folder:
        given = {**settings, "seed": seed, "budget": budget, "out": Path(folder) / "run", "quiet": True, "evaluate_every": 0, "checkpoint_every": 0}
        config = build_config(SLUG, **given)
        run = Run.create(config.run, folder_name=SLUG, full_config=saved_form(SLUG, config))
        summary = drive(get_method(SLUG)(config, run), run)
    found = {name: summary.after[f"eval/{name}"] for name in ("success", "any", "attempt")}
    tasks = summary.metrics["search/nodes"] / max(1.0, settings.get("tasks_limit", config.method.tasks_limit))
    found |= {"attempts": tasks, "calls": summary.metrics["search/calls_per_task"]}
    return found | {
        name.removeprefix("search/"): value for name, value in summary.metrics.items() if name.startswith(("search/gain_", "search/right_findings"))
    }
