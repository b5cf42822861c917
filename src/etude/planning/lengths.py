"""How long attempts get: measured lengths drawn again, or a log-normal distribution that is stated. Lengths differ between tasks and within them."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Lengths:
    """A distribution of the tokens of an attempt.

    measured: lengths of attempts by task: a task is drawn first where several attempts at a task are known (`by_task`), otherwise any; of its attempts none is drawn
    again before all others are. Without
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
            whole, rest = divmod(attempts, len(pool))
            return [min(self.longest, max(1, length)) for length in (*whole * pool, *generator.sample(pool, rest))]
        common = generator.gauss(0, self.spread * math.sqrt(self.between_tasks))
        own = self.spread * math.sqrt(1 - self.between_tasks)
        return [min(self.longest, max(1, round(self.median * math.exp(common + generator.gauss(0, own))))) for _ in range(attempts)]

    @cached_property
    def _pooled(self) -> tuple[int, ...]:
        return tuple(length for attempts in self.measured for length in attempts)

    def mean(self, draws: int = 20_000) -> float:
        """The mean length: of what was measured, exactly, otherwise of some draws (always the same)."""
        if self.measured:
            clipped = [[min(self.longest, max(1, length)) for length in attempts] for attempts in self.measured]
            return sum(sum(a) / len(a) for a in clipped) / len(clipped) if self.by_task else sum(map(sum, clipped)) / sum(map(len, clipped))
        if not self.spread:
            return float(min(self.longest, max(1, round(self.median))))
        generator = random.Random(0)
        return sum(self.draw(generator, 1)[0] for _ in range(draws)) / draws


def by_task(records: Iterable[Mapping[str, Any]], name: str) -> tuple[tuple[Any, ...], ...]:
    """A number of each attempt, by step and task, from the records of a run's trajectories; attempts without it are left out."""
    found: dict[tuple[Any, Any], list[Any]] = {}
    for record in records:
        if isinstance(value := record.get(name), (int, float)):
            found.setdefault((record.get("step"), record.get("task_id")), []).append(value)
    return tuple(map(tuple, found.values()))


def lengths_in(records: Iterable[Mapping[str, Any]]) -> tuple[tuple[int, ...], ...]:
    """Lengths by step and task."""
    return by_task((record for record in records if record.get("length")), "length")


def share_with_spread(rewards: Sequence[Sequence[float]], attempts: int) -> float:
    """The chance that so many attempts at a task do not all have the same reward, as drawn without replacement from those that are known of it, at all tasks alike.

    Where fewer are known, as many as are: an estimate from below.
    """
    different = 0.0
    for known in rewards:
        size = min(attempts, len(known))
        different += 1 - sum(math.comb(count, size) for count in Counter(known).values()) / math.comb(len(known), size)
    return different / len(rewards)
