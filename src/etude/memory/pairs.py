"""Curricula of questions in two wordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from etude.errors import InputError
from etude.memory.curriculum import Curriculum
from etude.types import Group, Task

LOOKED_AT = 64
"""Tasks looked at, for each one wanted, before a task set counts as one that cannot be rewritten."""


class PairedCurriculum(Curriculum):
    """Passes on the tasks of another curriculum that have another wording, with it in their `info` (`etude.tasks.twins`). Both wordings are left out together.

    rewrite: from a task to the task with its twin, or None. fits: whether both prompts leave room for an answer.
    `left_out` counts what was passed over since the beginning.
    """

    def __init__(self, inner: Curriculum, rewrite: Callable[[Task], Task | None], *, fits: Callable[[Task], bool] = lambda task: True) -> None:
        self.inner, self.rewrite, self.fits = inner, rewrite, fits
        self.left_out = 0

    def next(self, count: int) -> list[Task]:
        chosen: list[Task] = []
        asked: Task | None = None
        for _ in range(LOOKED_AT * count):
            asked = self.inner.next(1)[0]
            task = self.rewrite(asked)
            if task is None or not self.fits(task):
                self.left_out += 1
                continue
            chosen.append(task)
            if len(chosen) == count:
                return chosen
        assert asked is not None, "at least one task is asked for"
        raise InputError(
            f"of {LOOKED_AT * count} tasks {len(chosen)} have another wording that can be used, the last of them {asked.id!r} ({asked.prompt[:60]!r}); "
            f"expected at least {count}: give other tasks, or another --rewriter"
        )

    def observe(self, groups: Sequence[Group]) -> None:
        self.inner.observe(groups)

    def state(self) -> dict[str, Any]:
        return {"inner": self.inner.state(), "left_out": self.left_out}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state(state["inner"])
        self.left_out = int(state["left_out"])


class RoundsCurriculum(Curriculum):
    """A fixed list of tasks, round after round, each round in an order of its own."""

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        if not tasks:
            raise InputError("there are no tasks to go round; expected at least one")
        self.tasks, self.seed = list(tasks), seed
        self.cursor = 0

    def next(self, count: int) -> list[Task]:
        chosen = [self._task(self.cursor + i) for i in range(count)]
        self.cursor += count
        return chosen

    def state(self) -> dict[str, Any]:
        return {"cursor": self.cursor}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.cursor = int(state["cursor"])

    def _task(self, number: int) -> Task:
        round_, place = divmod(number, len(self.tasks))
        order = list(range(len(self.tasks)))
        Random(f"{self.seed}/{round_}").shuffle(order)
        return self.tasks[order[place]]
