"""`lists`: operations on lists of whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from etude.tasks.answers import normalise
from etude.tasks.builtin.operations import Items, Operations
from etude.tasks.builtin.slips import slipped_sequence, wrong_number
from etude.types import Task

_NUMBER_ENDINGS = ("sum", "max", "min", "count")


def _unique(items: Items, _: str) -> Items:
    return list(dict.fromkeys(items))


class Lists(Operations):
    """'reverse then take 2: 4 1 7 9' -> '9 7 1 4', 'answer: 9 7'. Commas and square brackets in an answer do not matter."""

    name = "lists"
    max_new_tokens = 40
    instruction = "Apply the operations from left to right to the list, one line after each. End with a line 'answer: X', items with spaces between."
    operations = {  # noqa: RUF012 (declared ClassVar in the base)
        "reverse": lambda items, _: items[::-1],
        "sort": lambda items, _: sorted(items, key=int),
        "unique": _unique,
        "take ": lambda items, n: items[: int(n)],
        "drop ": lambda items, n: items[int(n) :],
        "add ": lambda items, n: [str(int(i) + int(n)) for i in items],
        "sum": lambda items, _: [str(sum(map(int, items)))],
        "max": lambda items, _: [max(items, key=int)],
        "min": lambda items, _: [min(items, key=int)],
        "count": lambda items, _: [str(len(items))],
    }
    endings: ClassVar[frozenset[str]] = frozenset(_NUMBER_ENDINGS)

    def items(self, random: Random, count: int) -> Items:
        return [str(random.randint(0, 9)) for _ in range(count)]

    def argument(self, operation: str, items: Items, random: Random) -> str:
        return str(random.randint(1, 3 if operation == "add " else max(1, len(items) - 1)))

    def write(self, items: Sequence[str]) -> str:
        return " ".join(items)

    def slipped(self, items: Items, random: Random) -> Items:
        return [str(wrong_number(int(items[0]), random))] if len(items) == 1 else slipped_sequence(items, random)

    def judge(self, task: Task, answer: str) -> bool:
        given = answer.strip().strip("[]").replace(",", " ").split()
        return [normalise(g) for g in given] == (task.answer or "").split()
