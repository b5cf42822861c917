"""Comparisons as a person asks for them: `etude.compare([...])`, which `etude compare` calls.

A comparison is a folder: `plan.json` what was asked for, `ARM/seed-N/` every run with its report, `tuning/` those of a sweep, and at the end `compare.html`,
`compare.json` and `compare.csv`. The same call goes on where it stopped.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from etude.config import EvaluationConfig, InputConfig, RunConfig
from etude.durable import json_safe, replace_file
from etude.errors import InputError
from etude.evals.arm_text import arm_text, command_line, parse_arm, parse_seeds, parse_sweep, value_text
from etude.evals.arms import Arm, ArmRun, ArmWatcher, folder_name, plan_runs, run_arms
from etude.evals.comparison import Comparison, compare_curves
from etude.evals.sweep import choices, edge_remarks, tune
from etude.ledger import Budget
from etude.method import get_method
from etude.provenance import environment
from etude.run import RUNS
from etude.settings_file import saved_config, saved_form, tasks_title

MEASURED_BY = (*(f.name for kind in (InputConfig, EvaluationConfig) for f in fields(kind)), "max_new_tokens", "max_turns")
"""Settings that decide what is practised and how it is measured: the same for all arms, or their numbers would not be comparable."""
RUN_WIDE = tuple(f.name for f in fields(RunConfig))
"""Settings of the run, which are those of all runs here."""


@dataclass(frozen=True)
class Plan:
    """A comparison that has been checked and can be run. Made by `plan`."""

    arms: list[Arm]
    common: dict[str, Any]
    budget: str
    seeds: list[int]
    metric: str
    lower_is_better: bool
    sweep: dict[str, list[Any]]
    sweep_budget: str
    tuning_seeds: list[int]
    workers: int
    folder: Path
    command: str
    """The command that does the same, or goes on with it."""

    @property
    def title(self) -> str:
        """What is compared, in a line."""
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        return f"{', '.join(arm.name for arm in self.arms)}: {self.budget} a run, {seeds}, in {self.folder}"

    def to_plain(self) -> dict[str, Any]:
        """What makes it this comparison and no other; more seeds are the same one."""
        kept = ("common", "budget", "sweep", "sweep_budget", "tuning_seeds") if self.sweep else ("common", "budget")
        return json_safe({"arms": [arm_text(arm) for arm in self.arms], **{name: getattr(self, name) for name in kept}})

    def run(self, watcher: ArmWatcher | None = None) -> Comparison:
        """Run what is not there yet, and write the comparison. Raises as `compare` does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / "plan.json", json.dumps(self.to_plain(), indent=1) + "\n")
        arms, trials, remarks = self.arms, [], []
        if self.sweep:
            arms, trials = tune(
                self.arms,
                self.sweep,
                common=self.common,
                budget=self.sweep_budget,
                seeds=self.tuning_seeds,
                metric=self.metric,
                lower_is_better=self.lower_is_better,
                folder=self.folder / "tuning",
                workers=self.workers,
                watcher=watcher,
            )
            remarks += edge_remarks(trials, self.sweep)
        runs = run_arms(arms, common=self.common, budget=self.budget, seeds=self.seeds, folder=self.folder, workers=self.workers, watcher=watcher)
        comparison = compare_curves(arms, runs, metric=self.metric, budget=Budget.parse(self.budget), lower_is_better=self.lower_is_better)
        comparison.remarks += remarks
        comparison.tuning = [trial.to_plain() for trial in trials]
        comparison.settings = dict(self.common)
        comparison.command = self.command
        return write_comparison(comparison, runs, self.folder)


def compare(
    arms: Sequence[str | Arm],
    *,
    budget: str | None = None,
    seeds: int | str | Sequence[int] = 5,
    metric: str | None = None,
    lower_is_better: bool = False,
    sweep: Mapping[str, Sequence[Any]] | Sequence[str] = (),
    sweep_budget: str | None = None,
    tuning_seeds: int | str | Sequence[int] = 2,
    workers: int = 0,
    out: Path | str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Comparison:
    """Compare methods at equal budget over paired seeds, and say how far each is from the first, with 95 % intervals.

        etude.compare(["grpo", "dapo", "low=grpo:lr=1e-4"], tasks="arithmetic", budget="400k-tokens", seeds=5)["dapo"].difference.final

    arms: methods, with settings and a label where wanted (`etude.evals.arm_text`), or `Arm`s. settings: those that all arms share, as `etude.train` takes them;
    Python objects cannot be among them, as every run has its own process. seeds: a number counts from 1000. sweep: values to choose each arm's best from, on
    tuning seeds that are not reported. out: the folder; the same call in it goes on where the last one stopped.
    Raises InputError for whatever cannot be used, before anything is computed; KeyboardInterrupt when stopped, after every run has written a checkpoint.
    From a script, call it under `if __name__ == "__main__":` as anything that starts processes.
    """
    from etude.viewer.live_arms import LiveArms

    planned = plan(
        arms,
        budget=budget,
        seeds=seeds,
        metric=metric,
        lower_is_better=lower_is_better,
        sweep=sweep,
        sweep_budget=sweep_budget,
        tuning_seeds=tuning_seeds,
        workers=workers,
        out=out,
        **settings,
    )
    return planned.run(LiveArms(metric=planned.metric, title=planned.title, quiet=quiet))


def plan(
    arms: Sequence[str | Arm],
    *,
    budget: str | None,
    seeds: int | str | Sequence[int] = 5,
    metric: str | None = None,
    lower_is_better: bool = False,
    sweep: Mapping[str, Sequence[Any]] | Sequence[str] = (),
    sweep_budget: str | None = None,
    tuning_seeds: int | str | Sequence[int] = 2,
    workers: int = 0,
    out: Path | str | None = None,
    **settings: Any,
) -> Plan:
    """A comparison as `compare` takes it, checked. Computes and writes nothing. Raises InputError."""
    if budget is None:
        raise InputError("no budget is given; expected what every run may spend, as --budget 400k-tokens: without one, arms would be compared at unequal cost")
    sides = [arm if isinstance(arm, Arm) else parse_arm(arm) for arm in ([arms] if isinstance(arms, str) else arms)]
    if not sides:
        raise InputError("no arm is given; expected methods to compare, as in `etude compare grpo rloo --budget 400k-tokens`")
    _check_shared(sides)
    reported = parse_seeds(seeds)
    values = _sweep_of(sweep)
    tuned_on = parse_seeds(tuning_seeds, first=0) if values else []
    if both := sorted(set(reported) & set(tuned_on)):
        raise InputError(
            f"seed {both[0]} is to be reported and to be tuned on; a setting chosen on a seed looks better there than it is, so expected different ones"
        )
    score = metric or _score_of(sides)
    if len(reported) < 2:
        warnings.warn("one seed an arm shows no spread, so that there will be no intervals; two are the least, five are better", stacklevel=2)
    common = {name.replace("-", "_"): str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    command = command_line(
        sides,
        {
            **common,
            "budget": budget,
            "seeds": _seeds_text(reported),
            "metric": metric,
            "lower_is_better": lower_is_better or None,
            "sweep": [f"{name}={value_text(options)}" for name, options in values.items()],
            "sweep_budget": sweep_budget,
            "tuning_seeds": _seeds_text(tuned_on, first=0) if values else None,
            "workers": workers or None,
            "out": out,
        },
    )
    made = Plan(sides, common, budget, reported, score, lower_is_better, values, sweep_budget or budget, tuned_on, workers, Path(out or "."), command)
    folder = _folder(made, None if out is None else Path(out))
    made = replace(made, folder=folder)
    _check_runs(made)
    return made


def _check_runs(planned: Plan) -> None:
    """Refuse what cannot be run, and what is in the folder already but was begun otherwise."""
    if planned.sweep:
        for arm in planned.arms:
            plan_runs(
                choices(arm, planned.sweep), common=planned.common, budget=planned.sweep_budget, seeds=planned.tuning_seeds, folder=planned.folder / "tuning"
            )
    else:
        plan_runs(planned.arms, common=planned.common, budget=planned.budget, seeds=planned.seeds, folder=planned.folder)


def _check_shared(arms: Sequence[Arm]) -> None:
    for arm in arms:
        for name in arm.settings:
            plain = name.replace("-", "_")
            if plain in MEASURED_BY:
                raise InputError(
                    f"the arm {arm.name} has its own {plain}, but model, tasks and the way they are measured are the same for all arms, or their numbers could not be "
                    f"compared; give it once for all of them"
                )
            if plain in RUN_WIDE:
                raise InputError(
                    f"the arm {arm.name} has its own {plain}, which is a setting of the run and the same for all arms; give it once for all of them"
                )


def _sweep_of(sweep: Mapping[str, Sequence[Any]] | Sequence[str]) -> dict[str, list[Any]]:
    if isinstance(sweep, Mapping):
        pairs = [(str(name).replace("-", "_"), list(values)) for name, values in sweep.items()]
    else:
        pairs = [parse_sweep(text) for text in ([sweep] if isinstance(sweep, str) else sweep)]
    for name, values in pairs:
        if name in MEASURED_BY or name in RUN_WIDE:
            raise InputError(f"{name} cannot be swept: it decides what is practised and measured, not how a method learns")
        if len(values) < 2 or [other for other, _ in pairs].count(name) > 1:
            raise InputError(f"the sweep of {name} is {values}; expected at least two values, and every option once")
    return dict(pairs)


def _score_of(arms: Sequence[Arm]) -> str:
    """The metric that all arms' methods call their score."""
    from etude.driver import SCORE_KEY

    scores = {getattr(get_method(arm.method), "score_key", SCORE_KEY) for arm in arms}
    if len(scores) > 1:
        raise InputError(f"the methods have different scores: {', '.join(sorted(scores))}; say which metric to compare with --metric")
    return scores.pop()


def _seeds_text(seeds: Sequence[int], first: int | None = None) -> str:
    counted = parse_seeds(len(seeds)) if first is None else parse_seeds(len(seeds), first)
    return str(len(seeds)) if list(seeds) == counted else ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")


def _folder(made: Plan, out: Path | None) -> Path:
    """Where the comparison lives: the folder asked for, or the first of its name that is free or holds this very comparison."""
    asked = made.to_plain()
    if out is not None:
        found = _plan_in(out)
        if found is None and out.is_dir() and any(out.iterdir()):
            raise InputError(f"the folder {out} is not empty and holds no comparison; choose another one with --out")
        if found is not None and (changed := next((name for name in asked if found.get(name) != asked[name]), None)):
            raise InputError(
                f"the folder {out} holds a comparison with other {changed}: {found.get(changed)}, not {asked[changed]}; choose another folder with --out. "
                "Only seeds can be added"
            )
        return out
    tasks = tasks_title(made.common.get("tasks", InputConfig().tasks))
    name = f"compare-{'-'.join(folder_name(arm.name) for arm in made.arms)}"[:80].rstrip("-.") + f"-{tasks}"
    number = 1
    while True:
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        if not folder.exists() or _plan_in(folder) == asked:
            return folder
        number += 1


def _plan_in(folder: Path) -> dict[str, Any] | None:
    try:
        values = json.loads((folder / "plan.json").read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def write_comparison(comparison: Comparison, runs: Sequence[ArmRun], folder: Path) -> Comparison:
    """Add where the numbers come from, and write the comparison's files."""
    from etude.viewer.comparison_page import write_page

    comparison.folder = folder
    made = environment()
    comparison.made = {**{name: made[name] for name in ("python", "platform", "processor", "usable_cpus", "packages", "git")}, "configurations": {}}
    states = set()
    for run in runs:
        if (run.folder / "config.yaml").is_file():
            slug, config = saved_config(run.folder)
            comparison.made["configurations"].setdefault(run.arm, saved_form(slug, config))
        try:
            record = json.loads((run.folder / "environment.json").read_text())
            states.add(json.dumps([record.get("packages"), (record.get("git") or {}).get("commit"), record.get("processor"), record.get("threads")]))
        except (OSError, ValueError):
            continue
    if len(states) > 1:
        comparison.remarks.append("Runs were made with different versions, machines or numbers of threads; environment.json in their folders says which.")
    replace_file(folder / "compare.json", json.dumps(json_safe(comparison.to_plain()), indent=1, ensure_ascii=False) + "\n")
    replace_file(folder / "compare.csv", as_csv(comparison))
    write_page(comparison)
    return comparison


def as_csv(comparison: Comparison) -> str:
    """One line a run: what it reached and what it spent. Empty cells where a run did not finish."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    unit = comparison.budget.unit
    writer.writerow(
        ["arm", "method", "seed", "status", "metric", "final", "area", f"{unit}_to_first_arms_final", f"{unit}_spent", "steps", "seconds", "folder"]
    )
    for result in comparison.arms:
        for seed in result.seeds:
            numbers = ["" if v is None else f"{v:.6g}" for v in (seed.final, seed.area, seed.reached)]
            spent = [f"{seed.spent:.10g}", seed.steps, f"{seed.seconds:.3f}"]
            writer.writerow([result.arm.name, result.arm.method, seed.seed, seed.status, comparison.metric, *numbers, *spent, seed.folder])
    return out.getvalue()
