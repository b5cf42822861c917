"""Runs that start from a model which was first taught something, by imitation or else: the start that a claim is about is often not the embedded model."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.config import NO_STEP_LIMIT
from etude.errors import InputError
from etude.evals.experiment import SHARED
from etude.evals.measures import Record
from etude.ledger import Budget

if TYPE_CHECKING:
    from etude.run import Run

WARM_UP: dict[str, Any] = {"steps": 24, "tasks_per_step": 64, "lr": 1e-3}
"""The imitation, unless `warm_steps`, `warm_tasks_per_step` or `warm_lr` say otherwise."""
QUIET: dict[str, Any] = {"quiet": True, "eval_kl": False, "keep_last": 1, "save_trajectories": 0, "threads": 1}
"""Settings of every run that an experiment makes."""


def imitate_first(seed: int, settings: Mapping[str, Any], budget: str) -> Record:
    """What a run of `settings["method"]` on `settings["tasks"]` recorded, which started after `warm_steps` steps of imitation of a task set's demonstrations.

    `warm_tasks`: the task set to imitate (default: `tasks`); `model`: where imitation starts (default: `tiny`). Settings that begin with `warm_` are the imitation's, all
    others the run's. Settings that begin with `skill_` are another imitation, before that one: what its skill is, a model that then learnt another habit can still do.
    The budget is the run's alone. Arms of a claim that begin with the same imitation share it. With `warm_method` the start is trained by that method
    in place of imitation, for instance by reinforcement learning until it stands still.
    Raises InputError when there is no method or no task set.
    """
    with started_warm(seed, settings, budget) as (_, run):
        return Record(run.metrics(), Budget.parse(budget), name=f"{settings['method']}, seed {seed}")


@contextmanager
def started_warm(seed: int, settings: Mapping[str, Any], budget: str) -> Iterator[tuple[Path, Run]]:
    """The folder of the model that a run started from, and the run, while both are there; with the settings and errors of `imitate_first`."""
    import etude
    from etude.run import Run

    missing = [name for name in ("method", "tasks") if name not in settings]
    if missing:
        raise InputError(f"the experiment has no setting {missing[0]!r}; expected a method and a task set")
    own = {name: value for name, value in settings.items() if name not in ("method", "model") and not name.startswith(("warm_", "skill_"))}
    with shared_folder() as folder, tempfile.TemporaryDirectory() as scratch:
        trained, start = Path(scratch) / "run", taught_start(seed, settings, folder)
        run = {**QUIET, "seed": seed, "model": str(start), "budget": budget, "steps": NO_STEP_LIMIT}
        etude.train(settings["method"], out=trained, **{**run, **own})
        yield start, Run.open(trained)


def taught(seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The imitation that an experiment's settings begin with, as `warm_start` takes it."""
    warm = {name.removeprefix("warm_"): value for name, value in settings.items() if name.startswith("warm_")}
    return {"tasks": settings["tasks"], "model": settings.get("model", "tiny"), "seed": seed, **WARM_UP, **warm}


def taught_start(seed: int, settings: Mapping[str, Any], folder: Path) -> Path:
    """The model that an experiment's settings begin with, under `folder`: after the imitation of `skill_...`, where there is one, and that of `warm_...`."""
    skill = {name.removeprefix("skill_"): value for name, value in settings.items() if name.startswith("skill_")}
    if skill:
        lessons = {"model": settings.get("model", "tiny"), "seed": seed, **WARM_UP, **skill}
        settings = {**settings, "model": str(warm_start(lessons, folder, name="skilled"))}
    return warm_start(taught(seed, settings), folder)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Where the arms of a claim keep what several of them begin with; outside a claim a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(os.environ.get(SHARED, scratch))


def warm_start(settings: Mapping[str, Any], folder: Path, *, name: str = "start") -> Path:
    """The folder, called `name`, of a model that imitated demonstrations with these settings, or was trained by another `method`: made the first time, and found again
    under `folder` by whoever asks with the same ones. Another process that makes the same one is waited for."""
    import etude

    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    model = folder / key / name
    model.parent.mkdir(parents=True, exist_ok=True)
    with open(model.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not model.is_dir():
            with tempfile.TemporaryDirectory(dir=model.parent) as scratch:
                run = Path(scratch) / "run"
                few = {"export": "last", "evaluate_every": 0, "checkpoint_every": 0, "eval_tasks": 8, "eval_samples": 1}
                etude.train(out=run, **{"method": "sft", **QUIET, **few, **settings})
                shutil.move(run / "model", model)
    return model
