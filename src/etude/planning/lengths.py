"""How long attempts get: measured lengths drawn again, or a log-normal distribution that is stated. Lengths differ between tasks and within them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Lengths:
    """A distribution of the tokens of an attempt.

    measured: lengths of attempts by task, drawn from with replacement: a task first where several attempts at a task are known (`by_task`), otherwise any. Without
    them a log-normal distribution of this median; `spread` is the standard deviation of the logarithm, of whose variance the share `between_tasks` is common to all
    attempts at a task. Nothing is shorter than 1 or longer than `longest`.
    """

    longest: int
    median: float = 0.0
    spread: float = 0.0
    between_tasks: float = 0.0
    measured: tuple[tuple[int, ...], ...] = ()

    @property
    def by_task(self) -> bool:
        """Whether measured lengths tell tasks apart: at least two attempts at each on average."""
        return sum(map(len, self.measured)) >= 2 * len(self.measured) > 0

    def draw(self, generator: random.Random, attempts: int) -> list[int]:
        """The lengths of the attempts at one task."""
        if self.measured:
            pool = generator.choice(self.measured) if self.by_task else self._pooled
            return [min(self.longest, max(1, length)) for length in generator.choices(pool, k=attempts)]
        common = generator.gauss(0, self.spread * math.sqrt(self.between_tasks))
        own = self.spread * math.sqrt(1 - self.between_tasks)
        return [min(self.longest, max(1, round(self.median * math.exp(common + generator.gauss(0, own))))) for _ in range(attempts)]

    @cached_property
    def _pooled(self) -> list[int]:
        return [length for attempts in self.measured for length in attempts]

    def mean(self, draws: int = 20_000) -> float:
        """The mean length: of what was measured, exactly, otherwise of some draws (always the same)."""
        if self.measured:
            clipped = [[min(self.longest, max(1, length)) for length in attempts] for attempts in self.measured]
            return sum(sum(a) / len(a) for a in clipped) / len(clipped) if self.by_task else sum(map(sum, clipped)) / sum(map(len, clipped))
        if not self.spread:
            return float(min(self.longest, max(1, round(self.median))))
        generator = random.Random(0)
        return sum(self.draw(generator, 1)[0] for _ in range(draws)) / draws


def grouped(records: Iterable[Mapping[str, Any]]) -> tuple[tuple[int, ...], ...]:
    """Lengths by step and task from the records of a run's trajectories."""
    found: dict[tuple[Any, Any], list[int]] = {}
    for record in records:
        if isinstance(length := record.get("length"), int) and length > 0:
            found.setdefault((record.get("step"), record.get("task_id")), []).append(length)
    return tuple(map(tuple, found.values()))
