"""Which rule for choosing parents finds better coding agents, where they edit their own code and a scripted model answers them.

The agents are real programs that run in the jail on micro-repositories, and what a change is worth follows from their code; only the model that they ask is a script
(`etude.agents.scripted`). Success is measured on tasks whose functions no search has seen. So many runs are needed that few seeds can be had: this is a report and
gates nothing. The rules themselves are tested where a trial costs nothing, in the simulated world (`self_changing_agents.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from etude.agents.opening import scripted_responder
from etude.agents.world import AgentOptions, CodingAgents
from etude.config import AtLeastOne
from etude.errors import InputError, nearest
from etude.evals.intervals import mean_interval, paired_difference
from etude.experiments.study import Findings, Table, part
from etude.ledger import Ledger
from etude.method import get_method
from etude.search.archive import Archive, Job
from etude.search.bandits import most_trusted
from etude.search.growth import work_on
from etude.settings import merged
from etude.tasks.repos.micro import micro_tasks

RULES = {"hgm": "clade", "own": "own trials", "dgm": "DGM, 10 trials", "greedy": "greedy, 10 trials", "flat": "only the root, 10 trials"}


@dataclass(frozen=True)
class StudySettings:
    """The searches that are compared."""

    rules: tuple[str, ...] = ("hgm", "own", "dgm", "flat")
    """Who is changed next; the others are compared with the first."""
    seeds: AtLeastOne = 3
    """Searches by each rule."""
    evaluations: AtLeastOne = 100
    """Trials of a search."""
    skill: float = -1.0
    """Of the scripted model at tasks, in logits."""
    editing: float = 0.0
    """Of the scripted model at the agents' code, in logits."""
    repeats: AtLeastOne = 3
    """Runs at each held-out task, of the agent that is taken."""


def one_search(world: CodingAgents, rule: str, seed: int, evaluations: int) -> dict[str, float]:
    """A search by a rule of `hgm`, and the agent that it takes: its `success` on held-out tasks, and how it came to be."""
    config = merged(get_method("hgm").Config(), {"rule": rule})
    archive, world.ledger = Archive(world.root(), world.tasks), Ledger()
    begun = 0

    def count(job: Job) -> None:
        nonlocal begun
        begun += job.task is not None

    work_on(
        archive,
        world,
        config.growing(),
        share=lambda: begun / evaluations,
        room=lambda: begun < evaluations,
        random=lambda purpose, number: Random(f"self-editing agents {seed} {purpose} {number}"),
        settled=count,
    )
    nodes = archive.tree.nodes
    taken = nodes[most_trusted([node.own for node in nodes], 1 - config.confidence)]
    return {
        "success": world.measure(taken.state)["eval/success"],
        "depth": float(taken.depth),
        "changes": float(archive.expansions),
        "failed": float(archive.failures),
        "trials": float(archive.evaluations),
        "calls": float(world.ledger.calls),
    }


def study(settings: StudySettings) -> Findings:
    """Held-out success by rule, with 95 % intervals over seeds, and the paired differences to the first rule."""
    if unknown := [rule for rule in settings.rules if rule not in RULES]:
        raise InputError(f"there is no rule {unknown[0]!r}.{nearest(unknown[0], RULES)} Expected some of {', '.join(RULES)}")
    if not settings.rules:
        raise InputError(f"no rule is named; expected some of {', '.join(RULES)}")
    tasks = micro_tasks()
    world = CodingAgents(tasks, scripted_responder(tasks, skill=settings.skill, editing=settings.editing), AgentOptions(repeats=settings.repeats))
    try:
        start = part("the starting agent", lambda: world.measure(world.root())["eval/success"])
        runs = {
            rule: [
                part(f"parents by {RULES[rule]}, search {seed + 1} of {settings.seeds}", partial(one_search, world, rule, seed, settings.evaluations))
                for seed in range(settings.seeds)
            ]
            for rule in settings.rules
        }
    finally:
        world.close()
    first = [run["success"] for run in runs[settings.rules[0]]]
    values: dict[str, Any] = {"start": start, **runs}
    rows = []
    for rule, found in runs.items():
        success = [run["success"] for run in found]
        means = [sum(run[name] for run in found) / len(found) for name in ("changes", "failed", "depth")]
        ahead = "" if rule == settings.rules[0] else _shown(paired_difference(first, success)) if len(found) > 1 else f"{first[0] - success[0]:+.3f}"
        rows.append([RULES[rule], _shown(mean_interval(success)) if len(found) > 1 else f"{success[0]:.3f}", ahead, *(f"{value:.1f}" for value in means)])
    asked = f"{settings.evaluations} trials; seeds: {settings.seeds}; runs at each of {len(tasks.held_out())} held-out tasks: {settings.repeats}"
    columns = ("parents by", "success", "first rule ahead by", "changes", "failed", "depth of the one taken")
    return Findings(values, (Table(f"{asked}; the starting agent: {start:.3f}", columns, rows),))


def _shown(interval: Any) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
