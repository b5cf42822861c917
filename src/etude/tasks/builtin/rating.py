"""`rating`: is this solution right? Solutions of arithmetic, some of them wrong, are rated in the short form of verification."""

from __future__ import annotations

from random import Random
from typing import Any, Unpack

from etude.errors import InputError
from etude.tasks.answers import final_answer, same_answer
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.generated import FamilyOptions, Problem
from etude.tasks.builtin.slips import worked
from etude.tasks.verification import SHORT, Scale, rating_in, same
from etude.types import Task

SCALE = Scale()
MOST_TRIES = 200
"""Solutions drawn until one is right, or wrong, as wanted."""


class Rating(Arithmetic):
    """'rate: compute 9*8+19' and below it '9*8=72', '72+19=90', 'answer: 90' -> '9*8=72', '72+19=91', '91-90=1', 'answer: -0.5'.

    A solution with the right answer scores 1, one with another -0.5, one without -1. The line before the rating takes the smaller of two answers, the one that was
    worked out and the one that was stated, from the larger: to see whether a difference is 0 is easier to learn than to see whether two numbers are one.
    Expressions and difficulty are those of `arithmetic`.
    right: share of solutions that are right; unanswered: share that state no answer; the rest are wrong.
    honest: share of demonstrations that work the expression out and compare; the others guess at once, between right and wrong alike.
    solving: share of tasks that ask for a solution as `arithmetic` does, so that imitation of this family keeps that too.
    """

    name = "rating"
    instruction = "Check the solution in short steps. End with a line 'answer: X': 1 if it states a final answer and it is right, -0.5 if it is wrong, -1 if it states none."

    def __init__(
        self,
        *,
        right: float = 0.5,
        unanswered: float = 0.05,
        honest: float = 1.0,
        solving: float = 0.0,
        terms: int = 3,
        high: int = 30,
        factor_high: int = 9,
        limit: int = 99,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(terms=terms, high=high, factor_high=factor_high, limit=limit, **options)
        shares = {"right": right, "unanswered": unanswered, "right + unanswered": right + unanswered, "honest": honest, "solving": solving}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share:g}; expected a share in [0, 1]")
        self.right, self.unanswered, self.honest, self.solving = right, unanswered, honest, solving
        # Beyond a solution's: a rating of four tokens instead of a number, and the line that takes one number from another.
        digits = len(str(limit))
        self.max_new_tokens += max(0, 4 - digits) + 3 * digits + 3

    def draw(self, random: Random) -> Problem:
        expression = self.expression(random)
        value = worked(expression, random, 0.0)[1]
        info: dict[str, Any] = {"expression": expression, "value": value}
        asked = f"compute {expression}"
        if random.random() < self.solving:
            return Problem(key=expression, prompt=asked, answer=value, info=info)
        truth = random.choices(SCALE.values, (self.right, 1 - self.right - self.unanswered, self.unanswered))[0]
        response = solution(expression, value, truth, random)
        return Problem(key=expression, prompt=SHORT.format(question=asked, response=response), answer=f"{truth:g}", info=info | {"truth": truth})

    def judge(self, task: Task, answer: str) -> bool:
        truth = task.info.get("truth")
        return super().judge(task, answer) if truth is None else same(rating_in(f"answer: {answer}"), truth)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        lines, value = super().work(task, random, slips)
        truth = task.info.get("truth")
        if truth is None:
            return lines, value
        if random.random() >= self.honest:
            return [], f"{random.choice(SCALE.values[:2]):g}"
        stated = final_answer(task.prompt)
        lines.append(difference(value, stated))
        return lines, f"{SCALE.outcome(float(same_answer(stated, value)), answered=stated is not None):g}"


def difference(own: str, stated: str | None) -> str:
    """The line that compares two whole numbers, the larger first: '91-90=1'. Without a second one it says so: '91, error'."""
    if stated is None:
        return f"{own}, error"
    smaller, larger = sorted((int(own), int(stated)))
    return f"{larger}-{smaller}={larger - smaller}"


def solution(expression: str, value: str, truth: float, random: Random) -> str:
    """A solution as models write it whose score is `truth`: worked out with slips until it comes out as wanted; without the answer's marker where none is stated."""
    for _ in range(MOST_TRIES):
        lines, stated = worked(expression, random, 0.0 if truth == SCALE.right else 0.3)
        if truth == SCALE.unanswered:
            return "\n".join([*lines, stated])
        if same_answer(stated, value) == (truth == SCALE.right):
            return "\n".join([*lines, f"answer: {stated}"])
    raise InputError(f"no slip in {MOST_TRIES} tries changes the answer of {expression}; expected numbers above 1, for example high=30")
