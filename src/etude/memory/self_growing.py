"""A curriculum that makes its own tasks: what the policy wrote becomes what it begins from next (ExIt, arXiv:2509.04575).

Some tasks of a step are base tasks, the others are drawn from a buffer of partial histories: a base task and the attempts at it so far, of which the newest is shown. A
start's score is the variance of the rewards that a group of attempts got from it, which is largest where the policy succeeds every other time. The best attempt of a
group makes the history longer, and the longer history goes into the buffer. So a few single steps, each learnt for itself, reach depths that no episode was rolled out to.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from etude.memory.curriculum import Curriculum
from etude.memory.task_buffer import TaskBuffer
from etude.rollouts.plain import task_from_plain, task_to_plain
from etude.tasks.iterates import Mode
from etude.types import Group, Metrics, StartingPoint, Task, Trajectory, mean

QUALITY = "quality"
"""Tag of a judged attempt: how good it is by itself, in [0, 1], whatever it is rewarded for."""
SHOWN_DEPTHS = 4
"""Depths that have a share of their own in the metrics; deeper starts are counted together."""


@dataclass(frozen=True, slots=True)
class History:
    """A base task and the attempts at it so far, oldest first, each with its quality in [0, 1]. Without attempts it is the base task."""

    task: Task
    attempts: tuple[str, ...] = ()
    qualities: tuple[float, ...] = ()

    @property
    def depth(self) -> int:
        """Attempts so far."""
        return len(self.attempts)

    @property
    def key(self) -> str:
        """What identifies the start: the base task and the newest attempt, since nothing else is shown. Two ways to the same attempt are the same start."""
        return f"{self.task.id}#{hashlib.blake2b(self.attempts[-1].encode(), digest_size=6).hexdigest()}" if self.attempts else self.task.id

    def prefix(self, depth: int) -> History:
        """The history as it was after its first `depth` attempts."""
        return History(self.task, self.attempts[:depth], self.qualities[:depth])

    def extended(self, attempt: str, quality: float) -> History:
        """The history with one attempt more."""
        return History(self.task, (*self.attempts, attempt), (*self.qualities, quality))

    def to_plain(self) -> dict[str, Any]:
        return {"task": task_to_plain(self.task), "attempts": list(self.attempts), "qualities": list(self.qualities)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> History:
        return cls(task_from_plain(plain["task"]), tuple(plain["attempts"]), tuple(plain["qualities"]))


@dataclass(frozen=True, slots=True)
class Start:
    """What a task of this curriculum begins from, and what it asks for (None: a first attempt)."""

    history: History
    mode: Mode | None = None


class SelfGrowingCurriculum(Curriculum):
    """Base tasks of another curriculum, and starts that grew from attempts at them.

    begin: the task that begins from a history with attempts, for a mode. fits: whether it leaves room for an answer; histories that do not are not kept.
    share: chance of a place to be filled from the buffer, once that holds `minimum` entries. diverge: chance of such a start to ask for another way.
    prefix: begin from a drawn history as a whole, or after a number of its attempts that is drawn uniformly, none included.
    expand: which attempts make a history longer: the best one, all, or none, which leaves a prioritised replay of base tasks.
    scores: the variance of a group's rewards, or, as a control, random numbers in its range.
    Groups reach `observe` judged, every attempt with its tag QUALITY.
    """

    def __init__(
        self,
        inner: Curriculum,
        buffer: TaskBuffer,
        begin: Callable[[History, Mode], Task],
        *,
        seed: int,
        share: float = 0.5,
        minimum: int = 64,
        diverge: float = 0.1,
        prefix: Literal["uniform", "whole"] = "uniform",
        expand: Literal["best", "all", "none"] = "best",
        scores: Literal["variance", "random"] = "variance",
        fits: Callable[[Task], bool] = lambda task: True,
    ) -> None:
        self.inner, self.buffer, self.begin, self.fits, self.seed = inner, buffer, begin, fits, seed
        self.share, self.minimum, self.diverge, self.prefix, self.expand, self.scores = share, minimum, diverge, prefix, expand, scores
        self.calls = self.steps = 0
        self._given: dict[tuple[str, StartingPoint | None], Start] = {}
        """What the tasks begin from that were handed out and not observed yet. A task keeps its id wherever it begins, for the sake of verifiers that know it by that."""

    def next(self, count: int) -> list[Task]:
        random = Random(f"{self.seed}/starts/{self.calls}")
        self.calls += 1
        return [self._handed_out(self._start(random)) for _ in range(count)]

    def start_of(self, task: Task) -> Start:
        """What a task of this step begins from; a task from elsewhere is a base task."""
        return self._given.get((task.id, task.start)) or Start(History(task))

    def observe(self, groups: Sequence[Group]) -> None:
        self.steps += 1
        random = Random(f"{self.seed}/scores/{self.steps}")
        for group in groups:
            judged = [t for t in group.trajectories if not math.isnan(t.reward)]
            if len(judged) < 2:
                continue
            history = self.start_of(judged[0].task).history
            variance = statistics.pvariance([t.reward for t in judged])
            score = variance if self.scores == "variance" else 0.25 * random.random()
            self.buffer.measured(history.key, history.task.id, history.to_plain(), score, self.steps)
            for longer in self._longer(history, judged):
                self.buffer.derived(longer.key, longer.task.id, longer.to_plain(), score, self.steps)
        self.buffer.age(self.steps)
        self._given.clear()
        self.inner.observe(groups)

    def metrics(self, tasks: Sequence[Task]) -> Metrics:
        """Where the tasks of a step begin, and what the buffer holds. Age is in steps since an entry came in or was last measured."""
        starts = [self.start_of(task) for task in tasks]
        depths = [start.history.depth for start in starts]
        metrics: Metrics = {f"start/depth_{d}": mean([float(depth == d) for depth in depths]) for d in range(SHOWN_DEPTHS)}
        metrics |= {
            f"start/depth_{SHOWN_DEPTHS}_up": mean([float(depth >= SHOWN_DEPTHS) for depth in depths]),
            "start/depth": mean([float(depth) for depth in depths]),
            "start/diverge": mean([float(start.mode == "diverge") for start in starts]),
            "buffer/size": float(len(self.buffer)),
        }
        if len(self.buffer):
            metrics |= {
                "buffer/score": mean([e.score for e in self.buffer]),
                "buffer/unvisited": mean([float(not e.visits) for e in self.buffer]),
                "buffer/age": mean([float(self.steps - e.step) for e in self.buffer]),
                "buffer/depth": mean([float(len(e.item["attempts"])) for e in self.buffer]),
            }
        return metrics

    def state(self) -> dict[str, Any]:
        return {"inner": self.inner.state(), "buffer": self.buffer.state(), "calls": self.calls, "steps": self.steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state(state["inner"])
        self.buffer.load_state(state["buffer"])
        self.calls, self.steps = int(state["calls"]), int(state["steps"])
        self._given.clear()

    def _start(self, random: Random) -> Start:
        if not (self.share and len(self.buffer) >= self.minimum and random.random() < self.share):
            return Start(History(self.inner.next(1)[0]))
        history = History.from_plain(self.buffer.sample(random).item)
        if self.prefix == "uniform":
            history = history.prefix(random.randint(0, history.depth))
        if not history.depth:
            return Start(history)
        return Start(history, "diverge" if random.random() < self.diverge else "improve")

    def _handed_out(self, start: Start) -> Task:
        task = start.history.task if start.mode is None else self.begin(start.history, start.mode)
        self._given[task.id, task.start] = start
        return task

    def _longer(self, history: History, judged: Sequence[Trajectory]) -> list[History]:
        """The histories that a group's attempts make of the one that they began from."""
        if self.expand == "none":
            return []
        # Of equal rewards the better attempt, of equally good ones the first.
        chosen = judged if self.expand == "all" else [max(judged, key=lambda t: (t.reward, t.tags[QUALITY]))]
        longer = [history.extended(t.last_text, t.tags[QUALITY]) for t in chosen]
        modes: list[Mode] = ["improve", "diverge"] if self.diverge else ["improve"]
        return [h for h in longer if all(self.fits(self.begin(h, mode)) for mode in modes)]
