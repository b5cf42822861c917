"""`countdown`: reach a target with given numbers, each used exactly once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.answers import final_answer
from etude.tasks.builtin.expressions import evaluate, exact, numbers_in, work_through
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.first_error import FLAWLESS
from etude.types import Task

_STEP = re.compile(r"(-?\d+)([+*-])(-?\d+)=(-?\d+)")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2}


class Countdown(GeneratedTaskSet):
    """'make 13 from 3 7 2' -> '3*2=6', '7+6=13', 'answer: 7+3*2'. Any expression that works is right.

    numbers: how many are given, at least 2. high: largest of them. target_high: largest target.
    """

    name = "countdown"
    max_new_tokens = 36
    instruction = "Use each number exactly once with + - * and brackets. Work in short steps. End with a line 'answer: EXPRESSION'."

    def __init__(
        self,
        *,
        numbers: int = 3,
        high: int = 12,
        target_high: int = 99,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(**options)
        if numbers < 2 or high < 2 or target_high < 2:
            raise InputError(f"numbers is {numbers}, high {high}, target_high {target_high}; expected at least 2 each")
        self.numbers, self.high, self.target_high = numbers, high, target_high
        if numbers > 3:
            self.max_new_tokens = 16 * numbers

    def draw(self, random: Random) -> Problem:
        while True:
            given = [random.randint(1, self.high) for _ in range(self.numbers)]
            target, solution = self._combine(given, random)
            if 1 <= target <= self.target_high and target not in given:
                break
        key = f"countdown {target} from {' '.join(map(str, sorted(given)))}"
        info = {"numbers": given, "target": target, "solution": solution}
        return Problem(key=key, prompt=f"make {target} from {' '.join(map(str, given))}", answer=solution, info=info)

    def judge(self, task: Task, answer: str) -> bool:
        expression = answer.split("=")[0]
        try:
            used = Counter(numbers_in(expression))
            return used == Counter(task.info["numbers"]) and evaluate(expression) == task.info["target"]
        except ValueError:
            return False

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        """Exact: a step is wrong when it is no true equation of two numbers that are there, which it uses up and puts its result in the place of; the answer's, when its
        expression is not right. Whether that expression is the one that the steps worked out is not asked."""
        left = Counter(task.info["numbers"])
        for number, step in enumerate(steps):
            answer = final_answer(step)
            if answer is not None:
                if not self.judge(task, answer):
                    return number
                continue
            equation = _STEP.fullmatch(step)
            if equation is None:
                return number
            first, symbol, second, value = equation.groups()
            used = Counter((int(first), int(second)))
            if used - left or exact(int(first), symbol, int(second)) != int(value):
                return number
            left = left - used + Counter((int(value),))
        return FLAWLESS

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        solution, target = task.info["solution"], task.info["target"]
        if random.random() >= slips:
            lines, _ = work_through(solution, exact)
            return lines, solution
        # A slip is hopeful work: one operation too many guesses wrong, and the last line claims the target all the same.
        places = [i for i, c in enumerate(solution) if c in "+-*"]
        place = random.choice(places)
        attempt = solution[:place] + random.choice([s for s in "+-*" if s != solution[place]]) + solution[place + 1 :]
        lines, _ = work_through(attempt, exact)
        lines[-1] = f"{lines[-1].split('=')[0]}={target}"
        return lines, attempt

    def _combine(self, given: list[int], random: Random) -> tuple[int, str]:
        """The value and text of a random expression over all the given numbers, with brackets only where they are needed."""
        items = [(n, str(n), 3) for n in given]
        random.shuffle(items)
        while len(items) > 1:
            (left, left_text, left_rank), (right, right_text, right_rank) = items.pop(), items.pop()
            symbol = random.choice("+-*")
            if symbol == "-" and left < right:
                left, left_text, left_rank, right, right_text, right_rank = right, right_text, right_rank, left, left_text, left_rank
            rank = _PRECEDENCE[symbol]
            if left_rank < rank:
                left_text = f"({left_text})"
            if right_rank < rank or (symbol == "-" and right_rank == rank):
                right_text = f"({right_text})"
            items.append((exact(left, symbol, right), f"{left_text}{symbol}{right_text}", rank))
            random.shuffle(items)
        return items[0][:2]
