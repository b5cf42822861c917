"""A curriculum that leaves out what the policy solves every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etude.memory.curriculum import Curriculum
from etude.types import Group, Task

LOOKED_AT = 64
"""Tasks looked at, for each one wanted, before tasks that count as solved are handed out after all."""


class UnsolvedCurriculum(Curriculum):
    """Passes on the tasks of another curriculum, without those that the newest attempts solved every time (rStar2-Agent, arXiv:2508.20722: its third stage trains
    on the problems that the policy still fails sometimes).

    It watches from the beginning and filters while `active`. A task is known by its id, so that it acts on finite sets, which come round again; a generated stream has
    no second visit. A task that was left out comes back only when everything else is used up: where all of a long stretch is solved, the first of it are given.
    """

    def __init__(self, inner: Curriculum, *, active: bool = True, solved_at: float = 1.0) -> None:
        """solved_at: verdict from which an attempt solves its task."""
        self.inner, self.active, self.solved_at = inner, active, solved_at
        self.solved: set[str] = set()

    def next(self, count: int) -> list[Task]:
        if not self.active:
            return self.inner.next(count)
        chosen: list[Task] = []
        passed_over: list[Task] = []
        for _ in range(LOOKED_AT * count):
            task = self.inner.next(1)[0]
            (passed_over if task.id in self.solved else chosen).append(task)
            if len(chosen) == count:
                return chosen
        return [*chosen, *passed_over][:count]

    def observe(self, groups: Sequence[Group]) -> None:
        """Take in a step's attempts, the groups of one task together; those that could not be judged say nothing."""
        verdicts: dict[str, list[float]] = {}
        for group in groups:
            for trajectory in group.trajectories:
                if trajectory.correct == trajectory.correct:
                    verdicts.setdefault(trajectory.task.id, []).append(trajectory.correct)
        for task, found in verdicts.items():
            if min(found) >= self.solved_at - 1e-9:
                self.solved.add(task)
            else:
                self.solved.discard(task)
        self.inner.observe(groups)

    def state(self) -> dict[str, Any]:
        return {"inner": self.inner.state(), "solved": sorted(self.solved), "active": self.active}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state(state["inner"])
        self.solved, self.active = set(state["solved"]), bool(state["active"])
