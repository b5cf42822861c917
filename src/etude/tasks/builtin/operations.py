"""Base of the families that apply named operations one after another, with the state after each written out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import ClassVar, Unpack

from etude.errors import InputError
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import slipped_sequence
from etude.types import Task

Items = list[str]
Operation = Callable[[Items, str], Items]


class Operations(GeneratedTaskSet):
    """A sequence of items goes through `steps` operations: 'reverse then take 2: 4 1 7 9' -> '9 7 1 4', 'answer: 9 7'.

    steps: operations at most (1 to `steps`, evenly). shortest, longest: items at the start.
    """

    operations: ClassVar[Mapping[str, Operation]]
    """Name -> function of the items and the operation's argument. A name that ends in a space takes an argument."""
    endings: ClassVar[frozenset[str]] = frozenset()
    """Names that may only come last (their result is no longer a sequence of the same kind)."""

    def __init__(
        self,
        *,
        steps: int = 2,
        shortest: int = 4,
        longest: int = 6,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(**options)
        if steps < 1 or not 3 <= shortest <= longest:
            raise InputError(f"steps is {steps}, shortest {shortest}, longest {longest}; expected steps >= 1 and 3 <= shortest <= longest")
        self.steps, self.shortest, self.longest = steps, shortest, longest

    @abstractmethod
    def items(self, random: Random, count: int) -> Items:
        """Random items to start from."""

    @abstractmethod
    def argument(self, operation: str, items: Items, random: Random) -> str:
        """A sensible argument for an operation on these items."""

    @abstractmethod
    def write(self, items: Sequence[str]) -> str:
        """Items as text."""

    def draw(self, random: Random) -> Problem:
        start = self.items(random, random.randint(self.shortest, self.longest))
        steps: list[tuple[str, str]] = []
        items = start
        count = random.randint(1, self.steps)
        for i in range(count):
            allowed = [o for o in self.operations if (o not in self.endings or i == count - 1) and (not steps or o != steps[-1][0])]
            operation = random.choice(allowed)
            argument = self.argument(operation, items, random) if operation.endswith(" ") else ""
            items = self.operations[operation](items, argument)
            if not items:
                return self.draw(random)
            steps.append((operation, argument))
        prompt = f"{' then '.join(operation + argument for operation, argument in steps)}: {self.write(start)}"
        info = {"start": start, "steps": [list(s) for s in steps]}
        return Problem(key=f"{self.name} {prompt}", prompt=prompt, answer=self.write(items), info=info)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        items: Items = list(task.info["start"])
        lines: list[str] = []
        for operation, argument in task.info["steps"]:
            items = self.operations[operation](items, argument)
            if random.random() < slips:
                items = self.slipped(items, random)
            lines.append(self.write(items))
        return lines[:-1], lines[-1]

    def slipped(self, items: Items, random: Random) -> Items:
        """The items after an operation that went wrong."""
        return slipped_sequence(items, random)
