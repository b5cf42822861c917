"""Tasks of which some or all have no reference answer, for methods that learn without."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from etude.tasks.base import Environment, TaskSet
from etude.types import Task


class PartlyLabelled(TaskSet):
    """A task set whose tasks may lack a reference answer. An attempt at one that does is not judged: its `correct` is NaN, which means unscorable."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self.name = tasks.name
        self.max_new_tokens = tasks.max_new_tokens
        self.stop = tasks.stop
        self.max_turns = tasks.max_turns
        self.reward_weights = tasks.reward_weights

    def train_task(self, seed: int, index: int) -> Task:
        return self._tasks.train_task(seed, index)

    def held_out(self) -> Sequence[Task]:
        return self._tasks.held_out()

    def labelled(self) -> list[Task]:
        """Held-out tasks that have a reference answer."""
        return [task for task in self.held_out() if task.answer is not None]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": math.nan} if task.answer is None else self._tasks.verify(task, text)

    def answer_in(self, text: str) -> str | None:
        return self._tasks.answer_in(text)

    def demonstration(self, task: Task, seed: int) -> str | None:
        return self._tasks.demonstration(task, seed)

    def environment(self) -> Environment | None:
        return self._tasks.environment()
