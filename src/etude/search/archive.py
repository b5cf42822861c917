"""An archive of agents that grew out of each other: who was made out of whom, which tasks each was tried on, and what is in flight.

Agents are plain JSON values, so that an archive can be written to a file and read again. What they are, how one is changed and how one is tried is a `World`'s
business (`etude.search.worlds`). Several workers may share an archive: each job is reserved before it begins and settled when it has ended, and nodes may be added
in between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from etude.errors import InputError
from etude.search.tree import Node, Tree

Agent = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """How an agent did at a task. log: what there is to read about it, for whoever changes the agent next."""

    solved: bool
    log: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that gave no agent that works. log: why, and what was tried; it is kept with the agent that was to be changed."""

    log: str = ""


class History(dict[str, Trial]):
    """What is known of an agent when it is changed: its trials by task, and of its earlier changes those that failed, in words. A copy, which later results do not alter."""

    def __init__(self, trials: Mapping[str, Trial] | None = None, failures: Sequence[str] = ()) -> None:
        super().__init__(trials or {})
        self.failures = tuple(failures)


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do: try the agent of a node on a task, or, without a task, make a new agent out of it. number: counted over the whole search."""

    number: int
    node: int
    task: str | None = None


class Archive:
    """Agents by number, the first one being the root, each with its trials by task. A task is tried once by an agent."""

    def __init__(self, root: Agent, tasks: Sequence[str]) -> None:
        if not tasks or len(set(tasks)) != len(tasks):
            raise InputError(f"an archive has the tasks {list(tasks)}; expected at least one, each with a name of its own")
        self.tree = Tree(root)
        self.tasks = tuple(tasks)
        self.trials: list[dict[str, Trial]] = [{}]
        self.failures = 0
        """Changes that gave no agent."""
        self.lost: list[tuple[int, str]] = []
        """Of the changes that failed with words about it, the agent that was to be changed, and these words."""
        self.failed_in_a_row = 0
        """The newest changes that gave no agent, since one did or an agent was tried."""
        self.jobs = 0
        """Jobs that were handed out."""
        self.expanding: list[int] = []
        """Nodes that new agents are being made of."""
        self.trying: set[tuple[int, str]] = set()
        """Trials in flight: node and task."""

    def __len__(self) -> int:
        return len(self.tree)

    @property
    def evaluations(self) -> int:
        """Trials that came back."""
        return self.tree.root.statistics.visits

    @property
    def expansions(self) -> int:
        """Changes that were made or tried, with those in flight."""
        return len(self.tree) - 1 + self.failures + len(self.expanding)

    def untried(self, number: int) -> list[str]:
        """Tasks that an agent was not tried on and is not being tried on."""
        return [task for task in self.tasks if task not in self.trials[number] and (number, task) not in self.trying]

    def history(self, number: int) -> History:
        """What is known of an agent now."""
        return History(self.trials[number], [log for node, log in self.lost if node == number])

    def has_untried(self, number: int) -> bool:
        return self.begun(number) < len(self.tasks)

    def begun(self, number: int) -> int:
        """Trials of an agent, with those in flight."""
        return len(self.trials[number]) + (sum(node == number for node, _ in self.trying) if self.trying else 0)

    def expand(self, number: int) -> Job:
        """Reserve the making of a new agent out of one."""
        self.expanding.append(number)
        return self._job(number)

    def evaluate(self, number: int, random: Random) -> Job:
        """Reserve the trial of an agent on a task that it was not tried on, drawn at random. Raises InputError when there is none."""
        tasks = self.untried(number)
        if not tasks:
            raise InputError(f"agent {number} was tried on all {len(self.tasks)} tasks; expected one with a task left")
        task = random.choice(tasks)
        self.trying.add((number, task))
        self.failed_in_a_row = 0
        return self._job(number, task)

    def settle_expansion(self, job: Job, child: Agent | Failure | None) -> Node | None:
        """What came of a change: a new agent, or none. Raises InputError for a job that is not in flight."""
        if job.task is not None or job.node not in self.expanding:
            raise _not_in_flight(job)
        made = self.tree.add(job.node, child) if child is not None and not isinstance(child, Failure) else None
        self.expanding.remove(job.node)
        self.tree.release(job.node)
        self.failed_in_a_row = self.failed_in_a_row + 1 if made is None else 0
        if made is None:
            self.failures += 1
            if isinstance(child, Failure) and child.log:
                self.lost.append((job.node, child.log))
        else:
            self.trials.append({})
        return made

    def settle_evaluation(self, job: Job, trial: Trial) -> None:
        """What came of a trial. Raises InputError for a job that is not in flight."""
        if job.task is None or (job.node, job.task) not in self.trying:
            raise _not_in_flight(job)
        self.trying.remove((job.node, job.task))
        self.tree.release(job.node)
        self.trials[job.node][job.task] = trial
        self.tree.record(job.node, float(trial.solved))

    def _job(self, number: int, task: str | None = None) -> Job:
        self.tree.reserve(number)
        self.jobs += 1
        return Job(self.jobs, number, task)

    def to_plain(self) -> dict[str, Any]:
        """As plain JSON values, when nothing is in flight. Raises InputError when something is."""
        if self.expanding or self.trying:
            raise InputError(f"{len(self.expanding)} changes and {len(self.trying)} trials are in flight; an archive is written when all have been settled")
        trials = [{task: [trial.solved, trial.log] for task, trial in of_node.items()} for of_node in self.trials]
        return {
            "tree": self.tree.to_plain(),
            "tasks": list(self.tasks),
            "trials": trials,
            "failures": self.failures,
            "lost": [list(entry) for entry in self.lost],
            "failed_in_a_row": self.failed_in_a_row,
            "jobs": self.jobs,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Archive:
        """From what `to_plain` gave. Raises InputError for anything else."""
        try:
            tree = Tree.from_plain(plain["tree"])
            archive = cls(tree.root.state, plain["tasks"])
            archive.tree = tree
            archive.trials = [{task: Trial(solved, log) for task, (solved, log) in of_node.items()} for of_node in plain["trials"]]
            archive.lost = [(int(node), str(log)) for node, log in plain["lost"]]
            archive.failures, archive.failed_in_a_row, archive.jobs = plain["failures"], plain["failed_in_a_row"], plain["jobs"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the archive can't be read: {type(error).__name__} {error}; expected what Archive.to_plain() gives") from error
        return archive


def require_plain(agent: Any, where: str) -> Agent:
    """An agent that came from outside. Raises InputError unless it is a mapping of plain JSON values."""
    try:
        if isinstance(agent, Mapping) and json.loads(json.dumps(agent, allow_nan=False)) == agent:
            return agent
    except (TypeError, ValueError):
        pass
    raise InputError(f"{where} gave {agent!r:.200}; expected an agent, a dict of plain JSON values with text keys (lists and no tuples)")


def _not_in_flight(job: Job) -> InputError:
    return InputError(f"{job} is not in flight; expected a job that this archive has handed out and that was not settled yet")
