"""Arms: methods with settings that are run side by side, at equal budget and over paired seeds.

An arm and a seed make one ordinary run in a process of its own, `FOLDER/ARM/seed-N`. The seed decides the training tasks and every draw, and is the same for all
arms; the held-out split, the starting weights and the random numbers of evaluation are the same for all runs. Nothing here imports torch.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from etude.claim import Arm
from etude.config import NO_STEP_LIMIT, TrainConfig
from etude.errors import EtudeError, InputError
from etude.ledger import Budget, Ledger
from etude.method import get_method
from etude.provenance import usable_cpus
from etude.settings import OBJECTS, build_config, default_config, is_object, leaves, merged
from etude.settings_file import saved_config

WITHOUT_EFFECT = ("quiet", "track", "keep_last", "save_trajectories", "checkpoint_every", "out")
"""Settings that change no number: a run that was begun with others is the same run."""
RESERVED = {
    "out": "the folder of every run follows from the arm's name and the seed",
    "seed": "every arm runs with every one of `seeds`",
    "budget": "it is the same for all arms",
    "quiet": "runs of a comparison always are",
    "config": "settings are given one by one",
    "resume": "a comparison that is started again in its folder goes on by itself",
}

Status = Literal["finished", "crashed", "interrupted"]
State = Literal["waiting", "running", "stopping", "finished", "reused", "crashed", "interrupted"]


@dataclass
class ArmRun:
    """One arm with one seed, after it was run.

    error: why it crashed, or was interrupted; None for a finished one.
    rows: the lines of metrics.jsonl; each has `step`, the metrics by name, and `ledger` as it stood.
    """

    arm: str
    seed: int
    folder: Path
    status: Status
    error: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def curve(self, metric: str, unit: str = "tokens") -> tuple[list[float], list[float]]:
        """(budget spent, value) at every measurement of a metric, by rising budget; of several at the same place the last one counts.

        unit: as in a budget (`tokens`, `steps`, ...). Measurements that were NaN are left out; both lists are empty when there is none.
        """
        points: dict[float, float] = {}
        for row in self.rows:
            value = row.get(metric)
            if value is not None and math.isfinite(value):
                points[Budget(1, unit).used(Ledger.from_plain(row["ledger"]))] = float(value)
        return list(points), list(points.values())

    def spent(self, unit: str = "tokens") -> float:
        """What the run has spent in all, in a budget's unit."""
        return Budget(1, unit).used(self.ledger)

    @property
    def ledger(self) -> Ledger:
        """The ledger as it stood at the last line."""
        return Ledger.from_plain(self.rows[-1]["ledger"]) if self.rows else Ledger()


@dataclass
class ArmProgress:
    """Where one run of a comparison stands.

    share: of the budget, 1 or more when it is spent. step: steps done; None for an experiment, which has none. value: the newest held-out score, NaN before the
    first.
    """

    arm: str
    seed: int
    folder: Path
    state: State = "waiting"
    share: float = 0.0
    step: int | None = 0
    value: float = math.nan
    error: str | None = None


class ArmWatcher(Protocol):
    """Hears how the runs of a comparison get on. All calls come from the thread that called `run_arms`."""

    def began(self, runs: Sequence[ArmProgress]) -> None:
        """All runs, in the order in which they start; the objects are kept up to date."""

    def moved(self, run: ArmProgress) -> None:
        """Something about a run has changed."""

    def stopping(self) -> None:
        """The user asked to stop; runs finish their step and write a checkpoint."""

    def ended(self) -> None:
        """No process is left. Called once, last, however it ended."""


@dataclass(frozen=True)
class PlannedRun:
    """One run that `run_arms` is to see to its end. finished: it is there already."""

    arm: Arm
    seed: int
    folder: Path
    config: TrainConfig[Any]
    finished: bool


def run_arms(
    arms: Sequence[Arm],
    *,
    common: Mapping[str, Any],
    budget: str,
    seeds: Sequence[int],
    folder: Path,
    workers: int = 0,
    watcher: ArmWatcher | None = None,
) -> list[ArmRun]:
    """Run every arm with every seed until the budget is spent, and say how each ended: arms in their order, seeds within them.

    common: flat settings that all arms share. budget: as `etude train --budget`; a run ends with the step that spends the last of it.
    folder: holds a folder an arm; made when missing. Started again in it, finished runs are reused, and interrupted or crashed ones go on from their last
    checkpoint. workers: runs at once (0: as many as there are cores for; one on a GPU).
    A run that crashes has the status `crashed`, and the others go on. On Ctrl-C or SIGTERM every run finishes its step and writes a checkpoint, then
    KeyboardInterrupt is raised; a second one stops them at once.
    Raises InputError, before anything is computed, for whatever cannot be run, and for runs in the folder that were begun with other settings.
    """
    from etude.evals.arm_pool import check_setups, conclude_all, locked, run_pool

    planned = plan_runs(arms, common=common, budget=budget, seeds=seeds, folder=folder)
    threads = max(1, planned[0].config.run.threads)
    count = workers or default_workers(planned[0].config.inputs.device, threads)
    with locked(folder):
        open_runs = [run for run in planned if not run.finished]
        # Where every arm starts at once, what is wrong with one is seen at once.
        fresh = {run.arm.name: run for run in reversed(open_runs) if not (run.folder / "config.yaml").is_file()}
        if len(fresh) > count:
            check_setups(list(reversed(fresh.values())))
        errors = run_pool(planned, Budget.parse(budget), count, watcher)
        return conclude_all(planned, errors)


def plan_runs(arms: Sequence[Arm], *, common: Mapping[str, Any], budget: str, seeds: Sequence[int], folder: Path) -> list[PlannedRun]:
    """What `run_arms` would run, arm by arm. Computes and writes nothing. Raises InputError as it does."""
    limit = Budget.parse(budget)
    check_seeds(seeds)
    if not arms:
        raise InputError("no arm is given; expected at least one method")
    folders: dict[str, str] = {}
    for arm in arms:
        place = folder_name(arm.name)
        if place in folders:
            same = "is there twice" if folders[place] == arm.name else f"and {folders[place]!r} would have the same folder"
            raise InputError(f"the arm {arm.name!r} {same}; give each a label of its own, as in mine=grpo:lr=1e-4")
        folders[place] = arm.name
    planned = []
    for arm in arms:
        config = arm_config(arm, common, limit)
        for seed in seeds:
            place = folder / folder_name(arm.name) / f"seed-{seed}"
            own = merged(config, {"seed": seed, "out": place})
            planned.append(PlannedRun(arm, seed, place, own, _is_finished(place, own, arm)))
    return planned


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that are not different whole numbers, or none."""
    if not seeds or len(set(seeds)) < len(seeds) or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise InputError(f"seeds are {list(seeds)}; expected different whole numbers, 0 or more, and at least one")


def folder_name(name: str) -> str:
    """An arm's name as a folder's."""
    return re.sub(r"[^\w.=+-]+", "-", name).strip("-.") or "arm"


def arm_config(arm: Arm, common: Mapping[str, Any], budget: Budget) -> TrainConfig[Any]:
    """The configuration of an arm's runs, but for seed and folder. Raises InputError naming the arm."""
    given = {**_named(common), **_named(arm.settings)}
    for name, value in given.items():
        if name in RESERVED:
            raise InputError(f"{name} cannot be set for an arm: {RESERVED[name]}")
        if name in OBJECTS and is_object(value):
            raise InputError(f"{name} is a Python object, which cannot go to the processes that the arms run in; put it in a file and name it as file.py:NAME")
    known = leaves(default_config(arm.method))
    for name in common:
        if name.replace("-", "_") not in known:
            raise InputError(f"{name} is no option of {arm.method} ({arm.name}); give it to the arms that have it, as in METHOD:{name}=VALUE")
    _check_unit(arm, budget)
    if budget.unit == "steps":
        if budget.amount != int(budget.amount) or given.get("steps", budget.amount) not in (budget.amount, None):
            raise InputError(f"the budget is {budget} and steps is {given.get('steps')}; expected a whole number of steps, said once, in the budget")
        limit = int(budget.amount)
    else:
        limit = NO_STEP_LIMIT
    try:
        config = build_config(arm.method, **{"steps": limit, "threads": 1, **given, "budget": str(budget), "quiet": True})
    except InputError as error:
        raise InputError(f"arm {arm.name}: {error}") from error
    _check_environment(arm, config, budget)
    schedule = leaves(config).get("schedule")
    if config.run.steps >= NO_STEP_LIMIT and schedule is not None and schedule.value != "constant":
        raise InputError(
            f"arm {arm.name}: the schedule {schedule.value} runs over `steps`, which a budget of {budget} does not say; give steps, or a budget in steps"
        )
    return config


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).replace("-", "_"): value for name, value in settings.items()}


def _check_unit(arm: Arm, budget: Budget) -> None:
    spends = get_method(arm.method).spends
    if spends is not None and budget.unit not in {*spends, "steps", "seconds", "minutes"}:
        units = ", ".join([*sorted(spends), "steps", "seconds"])
        raise InputError(f"the budget of {budget} cannot be shared: {arm.method} ({arm.name}) spends no {budget.unit}; expected one in {units}")


def _check_environment(arm: Arm, config: TrainConfig[Any], budget: Budget) -> None:
    """Methods on the common loop spend environment steps only where the tasks have an environment."""
    if budget.unit != "env-steps":
        return
    from etude.loop import PolicyOptimization
    from etude.tasks.loading import load_tasks

    if issubclass(get_method(arm.method), PolicyOptimization):
        task_set = load_tasks(config.inputs.tasks, reward=config.inputs.reward, env=config.inputs.env)
        environment = task_set.environment()
        if environment is None:
            raise InputError(
                f"the budget of {budget} cannot be shared: {task_set.name} has no environment, so that no env-steps are spent; expected one in tokens, rollouts or steps"
            )
        environment.close()


def _is_finished(folder: Path, wanted: TrainConfig[Any], arm: Arm) -> bool:
    """Whether the run is there and has ended. Raises InputError when what is there was begun with other settings."""
    from etude.summary import Summary

    if not (folder / "config.yaml").is_file():
        return False
    slug, saved = saved_config(folder)
    if slug != arm.method:
        raise InputError(f"{folder} holds a run of {slug}, not of {arm.method}; choose another folder for this comparison with --out")
    before, after = leaves(saved), leaves(wanted)
    for name, leaf in after.items():
        if name not in WITHOUT_EFFECT and leaf.value != before[name].value:
            raise InputError(
                f"{folder} holds a run that was begun with {name} {before[name].value!r}, not {leaf.value!r}; choose another folder for this comparison with "
                "--out, or leave that setting as it was"
            )
    ended = Summary.read(folder)
    return ended is not None and ended.status == "finished"


def default_workers(device: str, threads: int) -> int:
    """Runs at once: what the cores allow, or one where the runs share a GPU."""
    torch = sys.modules.get("torch")
    if device.startswith("cuda") or (device == "auto" and torch is not None and torch.cuda.is_available()):
        return 1
    return max(1, (usable_cpus() or os.cpu_count() or 1) // threads)


def say(error: BaseException) -> str:
    """An error in one line."""
    return str(error) if isinstance(error, EtudeError) else f"{type(error).__name__}: {error}"
