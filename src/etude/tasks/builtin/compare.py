"""`compare`: pick or order numbers."""

from __future__ import annotations

from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import slipped_sequence
from etude.types import Task

_ORDERS = ("order up", "order down")
_PICKS = ("largest", "smallest", "second largest", "second smallest")


class Compare(GeneratedTaskSet):
    """'second largest: 40 7 211 39' -> '211 40 39 7', 'answer: 40'; 'order up: 40 7 211 39' -> 'answer: 7 39 40 211'.

    count: numbers to compare, at least 2. high: largest of them. decimals: digits after the point.
    """

    name = "compare"
    max_new_tokens = 36
    instruction = "Answer with the number, or with all numbers in order with spaces between. End with a line 'answer: X'."

    def __init__(self, *, count: int = 4, high: int = 199, decimals: int = 0, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if count < 2 or not 0 <= decimals <= 6 or high < count:
            raise InputError(f"count is {count}, decimals {decimals}, high {high}; expected count >= 2, decimals in 0..6 and high >= count")
        self.count, self.high, self.decimals = count, high, decimals
        widest = len(str(high)) + (decimals + 1 if decimals else 0) + 1
        self.max_new_tokens = (count + 1) * widest + 6

    def draw(self, random: Random) -> Problem:
        kind = random.choice([*_ORDERS, *_PICKS])
        scale = 10**self.decimals
        # Some numbers are drawn near each other, so that the first digit alone does not decide.
        centre = random.randrange(self.high * scale)
        spread = max(self.count, self.high * scale // 10)
        drawn: set[int] = set()
        while len(drawn) < self.count:
            number = centre + random.randint(-spread, spread) if random.random() < 0.5 else random.randrange(self.high * scale)
            if 0 < number <= self.high * scale:
                drawn.add(number)
        order = sorted(drawn)
        random.shuffle(order)
        numbers = [f"{n / scale:.{self.decimals}f}" for n in order]
        info = {"kind": kind, "numbers": numbers}
        key = f"compare {kind}: {' '.join(sorted(numbers))}"
        return Problem(key=key, prompt=f"{kind}: {' '.join(numbers)}", answer=_answer(kind, _ordered(kind, numbers)), info=info)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        kind = task.info["kind"]
        ordered = _ordered(kind, task.info["numbers"])
        if random.random() < slips:
            ordered = slipped_sequence(ordered, random)
        if kind in _ORDERS:
            return [], _answer(kind, ordered)
        answer = _answer(kind, ordered)
        if random.random() < slips:
            answer = random.choice(ordered)
        return [" ".join(ordered)], answer


def _ordered(kind: str, numbers: list[str]) -> list[str]:
    """The numbers in the order in which the kind of question looks at them; each pick is then the first or second."""
    return sorted(numbers, key=float, reverse=kind in ("order down", "largest", "second largest"))


def _answer(kind: str, ordered: list[str]) -> str:
    if kind in _ORDERS:
        return " ".join(ordered)
    place = 1 if kind.startswith("second") else 0
    return ordered[min(place, len(ordered) - 1)]
