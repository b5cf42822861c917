"""Runs that start from a model which was first taught something by imitation: the start that many a claim is about is not what the embedded model is."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.config import NO_STEP_LIMIT
from etude.errors import InputError
from etude.evals.measures import Record
from etude.ledger import Budget

WARM_UP: dict[str, Any] = {"steps": 24, "tasks_per_step": 64, "lr": 1e-3}
"""The imitation, unless `warm_steps`, `warm_tasks_per_step` or `warm_lr` say otherwise."""


def imitate_first(seed: int, settings: Mapping[str, Any], budget: str) -> Record:
    """What a run of `settings["method"]` on `settings["tasks"]` recorded, which started after `warm_steps` steps of imitation of a task set's demonstrations.

    `warm_tasks`: the task set to imitate (default: `tasks`); `model`: where imitation starts (default: `tiny`). All settings that are not named here and do not
    begin with `warm_` are the run's; imitation has settings of the run's only by a name with `warm_` before it. The budget is the run's alone.
    Raises InputError when there is no method or no task set.
    """
    import etude
    from etude.run import Run

    missing = [name for name in ("method", "tasks") if name not in settings]
    if missing:
        raise InputError(f"the experiment has no setting {missing[0]!r}; expected a method and a task set")
    shared = {"seed": seed, "quiet": True, "eval_kl": False, "keep_last": 1, "save_trajectories": 0, "threads": 1}
    warm = WARM_UP | {name.removeprefix("warm_"): value for name, value in settings.items() if name.startswith("warm_")}
    own = {name: value for name, value in settings.items() if name not in ("method", "model") and not name.startswith("warm_")}
    with tempfile.TemporaryDirectory() as folder:
        start, trained = Path(folder) / "start", Path(folder) / "run"
        few = {"tasks": settings["tasks"], "export": "last", "evaluate_every": 0, "eval_tasks": 8, "eval_samples": 1}
        etude.train("sft", out=start, model=settings.get("model", "tiny"), **{**shared, **few, **warm})
        etude.train(settings["method"], out=trained, model=str(start / "model"), budget=budget, **{"steps": NO_STEP_LIMIT, **shared, **own})
        return Record(Run.open(trained).metrics(), Budget.parse(budget), name=f"{settings['method']}, seed {seed}")
