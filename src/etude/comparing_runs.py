"""Compare runs that exist already: `etude compare --runs DIR DIR …`. Runs of the same method and settings are one arm over their seeds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.comparing import MEASURED_BY, write_comparison
from etude.driver import SCORE_KEY
from etude.durable import JsonLines
from etude.errors import InputError
from etude.evals.arm_text import value_text
from etude.evals.arms import Arm, ArmRun, Status
from etude.evals.comparison import Comparison, compare_curves
from etude.ledger import Budget
from etude.run import RUNS
from etude.settings import leaves
from etude.settings_file import saved_config, tasks_title
from etude.summary import Summary


@dataclass(frozen=True)
class _Existing:
    """One run as its folder has it. settings: the method's, and the run's own number of steps where a schedule runs over them."""

    folder: Path
    method: str
    seed: int
    settings: dict[str, Any]
    measured_by: dict[str, Any]
    budget: str | None
    score_key: str
    status: Status
    error: str | None
    rows: list[dict[str, Any]]


def compare_runs(
    folders: Sequence[Path | str],
    *,
    budget: str | None = None,
    metric: str | None = None,
    lower_is_better: bool = False,
    out: Path | str | None = None,
) -> Comparison:
    """The comparison of runs that have ended. The arm of the first folder is what the others are compared with.

    budget: where they are compared; every finished run must have spent it. Default: the most that all of them spent, in the unit of their own budgets where that
    is one, else in tokens. out: the folder that the comparison is written to.
    Raises InputError for runs of different models, tasks or held-out splits, for ones that have not ended, and for seeds that an arm has twice.
    """
    runs = [_existing(Path(folder)) for folder in folders]
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run is given; expected at least two to compare, as in `etude compare --runs runs/a runs/b`")
    for other in runs[1:]:
        _check_comparable(runs[0], other)
    limit = _common_budget(runs, budget)
    arms, of_arm = _grouped(runs)
    scores = {run.score_key for run in runs}
    if metric is None and len(scores) > 1:
        raise InputError(f"the runs have different scores: {', '.join(sorted(scores))}; say which metric to compare with --metric")
    made = [ArmRun(arm.name, run.seed, run.folder, run.status, run.error, run.rows) for arm in arms for run in of_arm[arm.name]]
    comparison = compare_curves(arms, made, metric=metric or scores.pop(), budget=limit, lower_is_better=lower_is_better)
    comparison.settings = dict(runs[0].measured_by)
    words = ["etude", "compare", "--runs", *map(str, folders), "--budget", str(limit), *(["--metric", metric] if metric else [])]
    comparison.command = shlex.join(words + (["--lower-is-better"] if lower_is_better else []))
    return write_comparison(comparison, made, _fresh_folder(arms, runs[0], out))


def _existing(folder: Path) -> _Existing:
    slug, config = saved_config(folder)
    ended = Summary.read(folder)
    if ended is None or ended.status == "interrupted":
        state = "has not ended" if ended is None else "was interrupted"
        raise InputError(f"the run in {folder} {state}; go on with it (etude train --resume {shlex.quote(str(folder))}), or leave it out")
    known = leaves(config)
    settings = {name: leaf.value for name, leaf in known.items() if leaf.sections[:1] == ("method",) and name not in MEASURED_BY}
    settings["threads"] = config.run.threads
    if (schedule := known.get("schedule")) is not None and schedule.value != "constant":
        settings["steps"] = config.run.steps
    return _Existing(
        folder,
        slug,
        config.run.seed,
        settings,
        {name: known[name].value for name in MEASURED_BY if name in known},
        config.run.budget,
        ended.score_key or SCORE_KEY,
        "finished" if ended.status == "finished" else "crashed",
        None if ended.status == "finished" else ended.reason,
        list(JsonLines(folder / "metrics.jsonl")),
    )


def _check_comparable(one: _Existing, other: _Existing) -> None:
    for name, value in one.measured_by.items():
        if other.measured_by.get(name, value) != value:
            raise InputError(
                f"{one.folder} and {other.folder} cannot be compared: {name} is {value!r} in one and {other.measured_by[name]!r} in the other. Runs are comparable when "
                "model, tasks and evaluation are the same"
            )
    shown = [_held_out(run.folder) for run in (one, other)]
    if shown[0] and shown[1] and shown[0] != shown[1]:
        raise InputError(
            f"{one.folder} and {other.folder} cannot be compared: they were measured on different held-out tasks, though their settings are the same. "
            "Was the task file changed between them?"
        )


def _held_out(folder: Path) -> list[tuple[Any, Any, Any]]:
    """The held-out tasks that the run kept attempts at; empty where it kept none."""
    records = [r for r in JsonLines(folder / "samples.jsonl") if r.get("step") == 0]
    return sorted({(str(r.get("task_id")), str(r.get("prompt")), str(r.get("answer"))) for r in records})


def _common_budget(runs: Sequence[_Existing], text: str | None) -> Budget:
    units = {Budget.parse(run.budget).unit if run.budget else "tokens" for run in runs}
    limit = Budget.parse(text) if text else Budget(1, units.pop() if len(units) == 1 else "tokens")
    spent = {run.folder: ArmRun("", run.seed, run.folder, run.status, None, run.rows).spent(limit.unit) for run in runs if run.status == "finished"}
    if not spent:
        raise InputError("none of the runs finished; there is nothing to compare")
    least = min(spent, key=lambda folder: spent[folder])
    if spent[least] == 0:
        raise InputError(f"the run in {least} spent no {limit.unit}; say another unit, as --budget 50-steps")
    if text is None:
        return Budget(spent[least], limit.unit)
    if spent[least] < limit.amount:
        raise InputError(f"the run in {least} spent {spent[least]:g} {limit.unit}, less than the budget of {limit}; expected a budget that every run has spent")
    return limit


def _grouped(runs: Sequence[_Existing]) -> tuple[list[Arm], dict[str, list[_Existing]]]:
    """Arms in the order of their first run. An arm is named by its method and, where several have that, by the settings in which those differ."""
    groups: dict[str, list[_Existing]] = {}
    for run in runs:
        groups.setdefault(f"{run.method} {json.dumps(run.settings, sort_keys=True, default=str)}", []).append(run)
    members = list(groups.values())
    arms = []
    for group in members:
        same = [other[0].settings for other in members if other[0].method == group[0].method]
        differing = [name for name in same[0] if any(s[name] != same[0][name] for s in same)]
        settings = {name: group[0].settings[name] for name in differing}
        title = ",".join(f"{name}={value_text(value)}" for name, value in settings.items())
        arms.append(Arm(group[0].method + (f":{title}" if title else ""), group[0].method, settings))
        seeds = [run.seed for run in group]
        if len(set(seeds)) < len(seeds):
            twice = next(run for run in group if seeds.count(run.seed) > 1)
            raise InputError(f"{arms[-1].name} is there twice with seed {twice.seed} (once in {twice.folder}); leave one of them out")
    return arms, {arm.name: group for arm, group in zip(arms, members, strict=True)}


def _fresh_folder(arms: Sequence[Arm], run: _Existing, out: Path | str | None) -> Path:
    if out is not None:
        folder = Path(out)
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"the folder {folder} is not empty; choose another one with --out")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    number = 1
    name = f"compare-{'-'.join(dict.fromkeys(arm.method for arm in arms))}-{tasks_title(run.measured_by.get('tasks', 'tasks'))}"
    while (folder := RUNS / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    folder.mkdir(parents=True)
    return folder
