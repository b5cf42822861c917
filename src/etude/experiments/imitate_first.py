"""Runs that start from a model which was first taught something, by imitation unless told otherwise: the start that a claim is about is often not the embedded model."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.config import NO_STEP_LIMIT
from etude.errors import InputError
from etude.evals.experiment import SHARED
from etude.evals.measures import Record
from etude.ledger import Budget

WARM_UP: dict[str, Any] = {"steps": 24, "tasks_per_step": 64, "lr": 1e-3}
"""The imitation, unless `warm_steps`, `warm_tasks_per_step` or `warm_lr` say otherwise."""


def imitate_first(seed: int, settings: Mapping[str, Any], budget: str) -> Record:
    """What a run of `settings["method"]` on `settings["tasks"]` recorded, which started after `warm_steps` steps of imitation of a task set's demonstrations.

    `warm_tasks`: the task set to imitate (default: `tasks`); `model`: where imitation starts (default: `tiny`); `warm_method`: what is done instead of imitation;
    `warm_seed`: its seed, where all runs are to start from the same model (default: the run's). All settings that are not named here and do not begin with `warm_`
    are the run's; the warm-up has settings of its own only by a name with `warm_` before it. The budget is the run's alone. Arms of a claim that begin with the
    same warm-up share it.
    Raises InputError when there is no method or no task set.
    """
    import etude
    from etude.run import Run

    missing = [name for name in ("method", "tasks") if name not in settings]
    if missing:
        raise InputError(f"the experiment has no setting {missing[0]!r}; expected a method and a task set")
    shared = {"seed": seed, "quiet": True, "eval_kl": False, "keep_last": 1, "save_trajectories": 0, "threads": 1}
    few = {"tasks": settings["tasks"], "export": "last", "evaluate_every": 0, "eval_tasks": 8, "eval_samples": 1}
    taught = {"method": "sft", "model": settings.get("model", "tiny"), **WARM_UP, **shared, **few}
    taught |= {name.removeprefix("warm_"): value for name, value in settings.items() if name.startswith("warm_")}
    own = {name: value for name, value in settings.items() if name not in ("method", "model") and not name.startswith("warm_")}
    with tempfile.TemporaryDirectory() as scratch:
        start, trained = warm_start(taught, Path(os.environ.get(SHARED, scratch))), Path(scratch) / "run"
        etude.train(settings["method"], out=trained, model=str(start), budget=budget, **{"steps": NO_STEP_LIMIT, **shared, **own})
        return Record(Run.open(trained).metrics(), Budget.parse(budget), name=f"{settings['method']}, seed {seed}")


def warm_start(settings: Mapping[str, Any], folder: Path) -> Path:
    """The folder of a model that was trained with these settings, `method` among them: made the first time, and found again under `folder` by whoever asks with the
    same ones. Another process that makes the same one is waited for."""
    import etude

    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    model = folder / key
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not model.is_dir():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                run = Path(scratch) / "run"
                etude.train(out=run, **settings)
                shutil.move(run / "model", model)
    return model
