"""Task sets of finitely many tasks: training goes round, reshuffled each epoch, and what is held out is fixed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from etude.errors import InputError
from etude.tasks.base import TaskSet
from etude.types import Task


class FiniteTasks(TaskSet):
    """Training tasks and held-out ones as two lists. `without_training` says what to do where there is nothing to train on."""

    without_training = "expected some training tasks"

    def __init__(self, train: Sequence[Task], held_out: Sequence[Task]) -> None:
        self._train, self._held_out = list(train), list(held_out)
        self._shuffled: dict[tuple[int, int], list[int]] = {}

    @property
    def train_size(self) -> int:
        """Number of training tasks: the length of an epoch."""
        return len(self._train)

    def train_task(self, seed: int, index: int) -> Task:
        if not self._train:
            raise InputError(f"the task set {self.name} has no training tasks: everything in it is held out; {self.without_training}")
        epoch, place = divmod(index, len(self._train))
        order = self._shuffled.get((seed, epoch))
        if order is None:
            order = list(range(len(self._train)))
            Random(f"{seed}/{epoch}").shuffle(order)
            # Two epochs at most are in use at once: a step may begin in one and end in the next.
            self._shuffled = {key: o for key, o in self._shuffled.items() if key == (seed, epoch - 1)} | {(seed, epoch): order}
        return self._train[order[place]]

    def held_out(self) -> Sequence[Task]:
        return self._held_out
