"""`etude reproduce`: run a claim's arms over its seeds, judge them, and write down what was found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.cards import card_of, is_own, known_cards
from etude.catalogue import CLAIMS
from etude.claim import TUNING_SEEDS, Arm, Claim, reported_seeds
from etude.errors import EtudeError, InputError
from etude.evals.claim_files import is_source_tree, result_of, write_result
from etude.evals.measures import Record
from etude.evals.verdict import Judgement, judge
from etude.ledger import Budget
from etude.method import MethodCard
from etude.provenance import environment

QUICK: Mapping[str, Any] = {
    "tasks_per_step": 2,
    "group_size": 4,
    "eval_tasks": 4,
    "eval_samples": 2,
    "eval_kl": False,
    "evaluate_every": 1,
    "save_trajectories": 8,
}
"""Options of a quick check, where a method has them."""
QUICK_SEEDS = tuple(TUNING_SEEDS)[:2]


@dataclass(frozen=True)
class Options:
    """How claims are run.

    seeds: how many of the reported seeds (0: as many as the claim asks for). workers: runs at a time (0: one a core). out: folder of the runs, which are reused.
    to: folder for SLUG.json and SLUG.svg; None for the default, see `results_folder`. quick: check the machinery on a reduced version, not the claim.
    """

    seeds: int = 0
    workers: int = 0
    out: Path = Path("runs") / "claims"
    to: Path | None = None
    quick: bool = False


@dataclass(frozen=True)
class Reproduction:
    """One claim, run and judged. result: what the file holds; path: the file."""

    card: MethodCard
    judgement: Judgement
    result: dict[str, Any]
    path: Path


class CrashedArms(EtudeError):
    """Runs of a claim failed, so that it cannot be judged: leaving them out, or averaging over what is left, would bias the comparison."""

    def __init__(self, slug: str, failures: Sequence[str]) -> None:
        listed = "".join(f"\n  {failure}" for failure in failures)
        super().__init__(
            f"the claim of {slug} cannot be judged: {len(failures)} of its runs did not finish{listed}\nFinished runs are kept; the same command goes on from them"
        )


def chosen_slugs(slugs: Sequence[str], *, family: str | None = None, everything: bool = False) -> list[str]:
    """The methods whose claims are asked for: those named, and those of a family or all of them that have a claim.

    Raises InputError for an unknown method or family, a named method without a claim, and when nothing is asked for.
    """
    for slug in slugs:
        if card_of(slug).claim is None:
            raise InputError(f"{slug} has no claim to check; `etude list` shows which methods have one")
    found = list(dict.fromkeys(slugs))
    if family is not None or everything:
        cards = [card_of(slug) for slug in known_cards()]
        if family is not None and family not in {card.family for card in cards}:
            raise InputError(f"there is no family {family!r}; families: {', '.join(sorted({card.family for card in cards}))}")
        found += [c.slug for c in cards if c.claim is not None and c.slug not in found and (everything or c.family == family)]
    if not found:
        raise InputError("no claim is named; expected methods, as in `etude reproduce grpo dapo`, or --family NAME, or --all")
    return found


def reproduce(slug: str, options: Options = Options(), *, watcher: Any = None, provenance: Mapping[str, Any] | None = None) -> Reproduction:
    """Run one claim, judge it and write what was found.

    watcher: an `etude.evals.arms.ArmWatcher`, which hears of the progress. provenance: what `environment()` gave at the start of the command.
    Raises InputError before anything is run when the claim or an option cannot be used; CrashedArms when runs failed.
    """
    card = card_of(slug)
    if card.claim is None:
        raise InputError(f"{slug} has no claim to check; `etude list` shows which methods have one")
    claim = quick_version(card.claim) if options.quick else card.claim
    seeds = _seeds(card.claim, options)
    to = results_folder(slug, options)
    made_with = provenance if provenance is not None else environment()
    folder = runs_folder(slug, options)
    if claim.experiment is not None:
        records, configurations = _try_out(slug, claim, seeds, folder, options.workers, watcher)
    else:
        records, configurations = _train(slug, claim, seeds, folder, options.workers, watcher)
    judgement = judge(claim, records)
    result = result_of(
        card,
        judgement,
        records,
        claim=claim,
        seeds=seeds,
        configurations=configurations,
        command=command(slug, options),
        environment=made_with,
        quick=options.quick,
    )
    path = write_result(result, to)
    from etude.viewer.claim_picture import write_picture

    write_picture(result, path.with_suffix(".svg"))
    return Reproduction(card, judgement, result, path)


def runs_folder(slug: str, options: Options) -> Path:
    """Where a claim's runs go. Those of a quick check stay apart."""
    return options.out / (f"{slug}-quick" if options.quick else slug)


def results_folder(slug: str, options: Options) -> Path:
    """Where a claim's result goes: `--to`; else `docs/claims` for Étude's own methods, in its own source tree; else `claims` in the current folder.

    A quick check goes into the folder of its runs. Raises InputError when it is sent to `docs/claims`.
    """
    if options.to is not None:
        if options.quick and options.to.resolve() == CLAIMS:
            raise InputError(f"--to is {options.to}, but a quick check says nothing about the claim; choose another folder")
        return options.to
    if options.quick:
        return runs_folder(slug, options)
    at_home = is_source_tree() and Path.cwd().resolve().is_relative_to(CLAIMS.parents[1])
    return CLAIMS if is_own(slug) and at_home else Path("claims")


def command(slug: str, options: Options) -> str:
    """The command that gives this result again."""
    flags = ["--quick"] if options.quick else [f"--seeds {options.seeds}"] if options.seeds else []
    return shlex.join(["etude", "reproduce", slug]) + "".join(f" {flag}" for flag in flags)


def quick_version(claim: Claim) -> Claim:
    """The same claim with two steps of a few attempts an arm: whether everything works, and nothing about the effect."""
    from etude.settings import default_config, leaves

    def reduced(arm: Arm) -> Arm:
        known = leaves(default_config(arm.method)) if claim.experiment is None else {}
        return replace(arm, settings={**arm.settings, **{k: v for k, v in QUICK.items() if k in known}, **claim.quick})

    return replace(claim, arms=tuple(map(reduced, claim.arms)), budget=claim.quick_budget)


def _seeds(claim: Claim, options: Options) -> tuple[int, ...]:
    if options.quick:
        return QUICK_SEEDS
    if options.seeds == 0:
        return claim.seeds
    if options.seeds < 2:
        raise InputError(
            f"--seeds is {options.seeds}; expected at least 2: one run an arm has no interval (0: as many as the claim asks for, {len(claim.seeds)})"
        )
    more = [seed for seed in reported_seeds(options.seeds) if seed not in claim.seeds]
    return (*claim.seeds, *more)[: options.seeds]


Records = dict[str, list[Record]]
Configurations = dict[str, Mapping[str, Any]]


def _try_out(slug: str, claim: Claim, seeds: Sequence[int], folder: Path, workers: int, watcher: Any) -> tuple[Records, Configurations]:
    """What the claim's experiment gave for every arm, in the order of the seeds. Raises CrashedArms."""
    from etude.evals.arms import ArmProgress
    from etude.evals.experiment import ExperimentRun, run_experiment

    assert claim.experiment is not None
    progress = {(arm.name, seed): ArmProgress(arm.name, seed, folder, state="running", step=None) for arm in claim.arms for seed in seeds}

    def finished(run: ExperimentRun) -> None:
        here = progress[run.arm, run.seed]
        here.state, here.share, here.error = run.status, 1.0, run.error
        if watcher is not None:
            watcher.moved(here)

    if watcher is not None:
        watcher.began(list(progress.values()))
    try:
        runs = run_experiment(
            claim.experiment,
            claim.arms,
            common=claim.common,
            budget=claim.budget,
            seeds=seeds,
            folder=folder,
            workers=workers,
            together=claim.seeds_together,
            finished=finished,
        )
    finally:
        if watcher is not None:
            watcher.ended()
    _require_finished(runs, slug)
    records = {arm.name: [Record.of_values(r.values, f"{arm.name}, seed {r.seed}") for r in runs if r.arm == arm.name] for arm in claim.arms}
    return records, {}


def _train(slug: str, claim: Claim, seeds: Sequence[int], folder: Path, workers: int, watcher: Any) -> tuple[Records, Configurations]:
    """The runs of every arm in the order of the seeds, and each arm's whole configuration. Raises CrashedArms."""
    from etude.evals.arms import run_arms
    from etude.run import load_config

    runs = run_arms(claim.arms, common=claim.common, budget=claim.budget, seeds=seeds, folder=folder, workers=workers, watcher=watcher)
    _require_finished(runs, slug)
    budget = Budget.parse(claim.budget)
    by_place = {(run.arm, run.seed): run for run in runs}
    records: Records = {}
    configurations: Configurations = {}
    for arm in claim.arms:
        own = [by_place[arm.name, seed] for seed in seeds]
        records[arm.name] = [Record(run.rows, budget, run.folder, f"{arm.name}, seed {run.seed}") for run in own]
        configurations[arm.name] = _without_place(load_config(own[0].folder / "config.yaml"))
    return records, configurations


def _without_place(configuration: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what differs between the seeds of an arm, and between machines."""
    run = {k: v for k, v in configuration.get("run", {}).items() if k not in ("out", "seed")}
    return {**configuration, "run": run}


def _require_finished(runs: Sequence[Any], slug: str) -> None:
    failures = [f"{run.arm}, seed {run.seed}: {run.status}: {run.error or 'no error was recorded'} ({run.folder})" for run in runs if run.status != "finished"]
    if failures:
        raise CrashedArms(slug, failures)
