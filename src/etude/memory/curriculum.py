"""Curricula: which tasks come next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from etude.tasks.base import TaskSet
from etude.types import Group, Task


class Curriculum(ABC):
    """Chooses the tasks of the next step and learns from how they went."""

    @abstractmethod
    def next(self, count: int) -> list[Task]:
        """The next `count` tasks to practise."""

    def observe(self, groups: Sequence[Group]) -> None:
        """Take in how a step's groups went."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain values that the next choice depends on."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state."""


class UniformCurriculum(Curriculum):
    """Training tasks in the order of the stream that the seed names."""

    def __init__(self, task_set: TaskSet, seed: int) -> None:
        self.task_set = task_set
        self.seed = seed
        self.cursor = 0

    def next(self, count: int) -> list[Task]:
        tasks = [self.task_set.train_task(self.seed, self.cursor + i) for i in range(count)]
        self.cursor += count
        return tasks

    def state(self) -> dict[str, Any]:
        return {"cursor": self.cursor}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.cursor = int(state["cursor"])
