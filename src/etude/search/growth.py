"""What an archive of agents does next: make a new agent out of one that is there, or try one on a task.

Two kinds of rules. `Sampled` decides job by job, by Thompson draws (HGM, arXiv:2510.21614). `Staged` tries every new agent on some tasks at once, on more if it does
well, and then makes the next (DGM, arXiv:2505.22954; SICA, arXiv:2504.15228).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from etude.search.archive import Agent, Archive, Failure, History, Job, Trial, require_plain
from etude.search.bandits import another_arm, dgm_weights, sharpness, thompson
from etude.search.side_by_side import side_by_side
from etude.search.tree import Statistics, Tree
from etude.search.worlds import World

MOST_FAILED = 10
"""Changes that may fail one after another, once all agents were tried on all tasks."""
Guidance = Callable[[Tree], Sequence[Statistics]]
"""The trials that a node is judged by as a parent, for all nodes of a tree."""


def by_clade(tree: Tree) -> list[Statistics]:
    """Those of the node and all its descendants: what became of its descendants counts."""
    return [node.statistics for node in tree.nodes]


def by_own(tree: Tree) -> list[Statistics]:
    """The node's own."""
    return [node.own for node in tree.nodes]


class Rule(Protocol):
    """What comes next. share: of the budget that is spent. The job that is given back is reserved; None when nothing can be done before something in flight returns."""

    def next(self, archive: Archive, share: float, random: Random) -> Job | None: ...


@dataclass(frozen=True)
class Sampled:
    """HGM's rule; with `by_own` its ablation, which judges parents like everything else by their own trials.

    exponent: the archive grows while trials ** exponent reaches its size. cooling: exponent of the draws' schedule (0: none). warm_up: trials of the root before
    anything else; it goes on until one succeeds. most: changes at most (0: no limit).
    """

    guidance: Guidance = by_clade
    exponent: float = 0.6
    cooling: float = 1.0
    warm_up: int = 10
    most: int = 0

    def next(self, archive: Archive, share: float, random: Random) -> Job | None:
        tree = archive.tree
        cold = archive.begun(0) < self.warm_up or not tree.root.statistics.total
        if cold and archive.has_untried(0):
            return archive.evaluate(0, random)
        sharp = sharpness(share, self.cooling)
        untried = [(node.number, node.own) for node in tree.nodes if archive.has_untried(node.number)]
        grows = another_arm(archive.evaluations, len(archive) - 1 + len(archive.expanding), self.exponent)
        # After a change that failed something is tried first: otherwise changes that always fail would go on for ever, at no cost in trials.
        if may_expand(archive, self.most) and (not (untried or archive.trying) or (grows and not archive.failed_in_a_row)):
            parents = [(number, trials) for number, trials in enumerate(self.guidance(tree)) if tree.nodes[number].own.total]
            return archive.expand(thompson(parents, sharp, random) if parents else 0)
        return archive.evaluate(thompson(untried, sharp, random), random) if untried else None


Choice = Callable[[Archive, Random], int]
"""Which agent the next one is made of."""


def in_proportion(archive: Archive, random: Random) -> int:
    """DGM: drawn by success, and against those that have many children already."""
    nodes = archive.tree.nodes
    return random.choices(range(len(nodes)), dgm_weights([node.own.value for node in nodes], [len(node.children) for node in nodes]))[0]


def best_so_far(archive: Archive, random: Random) -> int:
    """SICA, or greedy search: the one that did best; of equal ones the first."""
    return max(archive.tree.nodes, key=lambda node: node.own.value).number


def always_root(archive: Archive, random: Random) -> int:
    """Best of many changes of the root, which nothing is built on: the control that a search has to beat."""
    return 0


@dataclass(frozen=True)
class Staged:
    """Rules that try every agent on `first` tasks, on `second` more where at least `passing` of these were solved, and then make the next out of what `choice` gives.

    most: changes at most (0: no limit).
    """

    choice: Choice
    first: int = 10
    second: int = 0
    passing: float = 0.4
    most: int = 0

    def next(self, archive: Archive, share: float, random: Random) -> Job | None:
        for node in archive.tree.nodes:
            if archive.begun(node.number) < self._wanted(archive, node.number) and archive.has_untried(node.number):
                return archive.evaluate(node.number, random)
        # After a change that failed the best agent is tried once more, if it can be: failed changes cost no trials.
        if archive.failed_in_a_row and (untried := [node for node in archive.tree.nodes if archive.has_untried(node.number)]):
            return archive.evaluate(max(untried, key=lambda node: node.own.value).number, random)
        return archive.expand(self.choice(archive, random)) if may_expand(archive, self.most) and archive.evaluations else None

    def _wanted(self, archive: Archive, number: int) -> int:
        """Trials that an agent is to have, by what is known of it."""
        first = [trial.solved for trial in list(archive.trials[number].values())[: self.first]]
        passed = len(first) == self.first and sum(first) >= self.passing * self.first
        return self.first + (self.second if passed else 0)


def may_expand(archive: Archive, most: int) -> bool:
    """Whether another change may be made. most: 0 for no limit. Not after MOST_FAILED that all failed, between which there was nothing left to try."""
    return (not most or archive.expansions < most) and archive.failed_in_a_row < MOST_FAILED


def work_on(
    archive: Archive,
    world: World,
    rule: Rule,
    *,
    share: Callable[[], float],
    room: Callable[[], bool],
    random: Callable[[str, int], Random],
    jobs: int | None = None,
    workers: int = 1,
    settled: Callable[[Job], None] = lambda job: None,
) -> None:
    """Let an archive grow: do what the rule says, `workers` jobs at once, until there is no room or nothing to do.

    share: of the budget that is spent. room: whether another job may begin, given what is in flight. random: a generator for a purpose and a job's number. jobs: at
    most so many (None: no limit). settled: hears of each job that has ended. Raises InputError for agents that are no plain JSON values.
    """
    begun = 0

    def next_job() -> tuple[Job, History] | None:
        nonlocal begun
        if begun == jobs or not room():
            return None
        job = rule.next(archive, share(), random("choose", archive.jobs + 1))
        if job is None:
            return None
        begun += 1
        # What is known when it begins: what comes back while it runs must not depend on how long it takes.
        return job, archive.history(job.node)

    def work(given: tuple[Job, History]) -> Agent | Failure | Trial | None:
        job, history = given
        agent = archive.tree.nodes[job.node].state
        if job.task is None:
            child = world.mutate(agent, history, random("mutate", job.number))
            return child if child is None or isinstance(child, Failure) else require_plain(child, "mutate")
        came = world.evaluate(agent, job.task, random("evaluate", job.number))
        return came if isinstance(came, Trial) else Trial(bool(came))

    def settle(given: tuple[Job, History], came: Agent | Failure | Trial | None) -> None:
        job, _ = given
        if isinstance(came, Trial):
            archive.settle_evaluation(job, came)
        else:
            archive.settle_expansion(job, came)
        settled(job)

    side_by_side(next_job, work, settle, workers=workers)
