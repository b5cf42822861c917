"""`max5`: sums whose largest decides the answer, so that a wrong sum often leaves the answer right, and a guess is right one time in three.

Right answers by wrong ways (flawed positives) come by themselves here, and every step of the written work can be checked exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.answers import final_answer, normalise
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import wrong_number
from etude.tasks.first_error import FLAWLESS
from etude.types import Task

BINS = ("L", "M", "H")
_EQUATION = re.compile(r"(\d+)\+(\d+)=(\d+)")


class Max5(GeneratedTaskSet):
    """'bin 12 14: 3+4 9+8 2+2 1+6 5+5' -> '3+4=7', '9+8=17', '2+2=4', '1+6=7', '5+5=10', 'answer: H'.

    The answer says how large the largest sum is: L up to the first number, M up to the second, else H. The two numbers part the problems into thirds, as nearly as
    whole numbers can.

    sums: how many, at least 1. high: largest term. jumps: share of demonstrations that write nothing but a guess.
    """

    name = "max5"
    instruction = (
        "Add up each sum, one to a line. The answer says how large the largest is: L up to the first number after 'bin', M up to the second, else H. "
        "End with a line 'answer: X'."
    )

    def __init__(self, *, sums: int = 5, high: int = 9, jumps: float = 0.0, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if sums < 1 or high < 3:
            raise InputError(f"sums is {sums}, high {high}; expected at least 1 and 3")
        if not 0 <= jumps <= 1:
            raise InputError(f"jumps is {jumps}; expected a share in [0, 1]")
        self.sums, self.high, self.jumps = sums, high, jumps
        self.thresholds = _thirds(sums, high)
        digits = len(str(high))
        self.max_new_tokens = sums * (3 * digits + 4) + 6

    def draw(self, random: Random) -> Problem:
        pairs = [(random.randint(1, self.high), random.randint(1, self.high)) for _ in range(self.sums)]
        low, middle = self.thresholds
        asked = " ".join(f"{a}+{b}" for a, b in pairs)
        info = {"pairs": [list(pair) for pair in pairs], "thresholds": [low, middle]}
        return Problem(key=f"max5 {asked}", prompt=f"bin {low} {middle}: {asked}", answer=self.bin_of(max(a + b for a, b in pairs)), info=info)

    def bin_of(self, value: int) -> str:
        """The bin that a largest sum belongs to."""
        low, middle = self.thresholds
        return BINS[(value > low) + (value > middle)]

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        return ([], random.choice(BINS)) if random.random() < self.jumps else self.added(task, random, slips)

    def added(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        """The sums worked out one by one, and the answer that follows from them; both with slips."""
        values = [wrong_number(a + b, random) if random.random() < slips else a + b for a, b in task.info["pairs"]]
        answer = self.bin_of(max(values))
        if random.random() < slips / 6:
            answer = random.choice(BINS)
        return [f"{a}+{b}={value}" for (a, b), value in zip(task.info["pairs"], values, strict=True)], answer

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        """Exact: a step is wrong when it holds a sum that is not true or not asked for, or anything else but sums; and the answer's, when not all sums stand before
        it, or when it does not follow from what stands there."""
        wanted = Counter(tuple(pair) for pair in task.info["pairs"])
        written: Counter[tuple[int, int]] = Counter()
        values: list[int] = []
        for number, step in enumerate(steps):
            answer = final_answer(step)
            if answer is not None:
                follows = bool(values) and normalise(answer) == normalise(self.bin_of(max(values)))
                if written != wanted or not follows:
                    return number
                continue
            for part in step.split():
                equation = _EQUATION.fullmatch(part)
                if equation is None:
                    return number
                a, b, value = map(int, equation.groups())
                written[a, b] += 1
                values.append(value)
                if a + b != value or written[a, b] > wanted[a, b]:
                    return number
        return FLAWLESS


def _thirds(sums: int, high: int) -> tuple[int, int]:
    """The two numbers that part the largest of some sums of two terms from 1 to `high` into three bins of nearly equal chance."""
    counts = Counter(a + b for a in range(1, high + 1) for b in range(1, high + 1))
    chance, below = {}, 0
    for value in range(2, 2 * high + 1):
        below += counts[value]
        chance[value] = (below / high**2) ** sums
    low = min(chance, key=lambda value: abs(chance[value] - 1 / 3))
    middle = min((value for value in chance if value > low), key=lambda value: abs(chance[value] - 2 / 3))
    return low, middle
