"""`column-sums`: addition on paper, a column a line, with an annotator that finds the first wrong line of a solution.

A column is checked by looking at one line, while a solution needs all of them right, so that a model which slips in its own work can be taught to see where.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.base import Annotation
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import wrong_number
from etude.tasks.feedback import FEEDBACK, REFINE, Roles
from etude.types import Task

SHORT = Roles(FEEDBACK["short"], REFINE["short"])
LESSON_SLIPS = 0.3
"""How often a step of a solution in a lesson goes wrong."""


class ColumnSums(GeneratedTaskSet):
    """'add 345+278' -> '5+8+0=13', '4+7+1=12', '3+2+1=6', 'answer: 623'. A line is a column with what was carried into it, the last digits first.

    digits: of both numbers, at least 1. carries: off: no column is above 9, and a wrong sum is another digit. A model of a million parameters learns to add long before it
    learns to see that two numbers of two digits differ; that two digits do is easier. lessons: share of training tasks that ask what the annotator says of a solution with
    slips, in the short form of feedback: a start for models too small to learn that from a few hundred records. The held-out split has none.
    """

    name = "column-sums"
    instruction = "Add the two numbers column by column, the last digits first: digit+digit+carry=sum, one column a line. End with a line 'answer: X'."

    def __init__(self, *, digits: int = 3, carries: bool = True, lessons: float = 0.0, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if digits < 1:
            raise InputError(f"digits is {digits}; expected at least 1")
        if not 0 <= lessons <= 1:
            raise InputError(f"lessons is {lessons}; expected a share in [0, 1]")
        self.digits, self.carries, self.lessons = digits, carries, lessons
        # A column is up to nine tokens with its line's end; then 'answer: ', the sum and the end token, and a little for slips.
        self.max_new_tokens = 9 * digits + digits + 5

    def draw(self, random: Random) -> Problem:
        low, high = 10 ** (self.digits - 1), 10**self.digits - 1
        left, right = (random.randint(low, high), random.randint(low, high)) if self.carries else without_carries(self.digits, random)
        return Problem(key=f"add {left}+{right}", prompt=f"add {left}+{right}", answer=str(left + right), info={"left": left, "right": right})

    def train_task(self, seed: int, index: int) -> Task:
        task = super().train_task(seed, index)
        random = Random(f"{task.id}/lesson")
        if random.random() >= self.lessons:
            return task
        solution = self._written(random, *self.work(task, random, LESSON_SLIPS))
        said = self.annotate(task, solution)
        assert said is not None, "a drawn task has an answer"
        return replace(task, messages=SHORT.criticise(task, solution), answer=None, info={**task.info, "lesson": said.feedback})

    def demonstration(self, task: Task, seed: int) -> str | None:
        lesson = task.info.get("lesson")
        return lesson if lesson is not None else super().demonstration(task, seed)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        return columns(task.info["left"], task.info["right"], random, slips, digits_only=not self.carries)

    def annotate(self, task: Task, text: str) -> Annotation | None:
        """Each line worked anew, with the sum (or the answer) that is there behind it, up to the first that differs; then 'ok', or 'bad K: S': line K should say S.

        Lines '5+8+0=13,13', '4+7+1=12,12', '3+2+1=6,6', 'answer: 623,623' and 'ok'; lines '5+8+0=13,13', '4+7+1=12,11' and 'bad 2: 12'. A line that is missing or of another
        form counts as '?'. Whoever can add a column in an answer has all that this takes.
        """
        if task.answer is None:
            return None
        wanted, written = [*columns(task.info["left"], task.info["right"], Random(0), 0.0)[0], f"answer: {task.answer}"], text.strip().splitlines()
        looks, verdict = list[str](), "ok"
        for number, line in enumerate(wanted, start=1):
            asked, right = _parted(line)
            begun, given = _parted(written[number - 1]) if number <= len(written) else ("", "")
            found = given if begun == asked else "?"
            looks.append(f"{line},{found}")
            if found != right:
                verdict = f"bad {number}: {right}"
                break
        return Annotation("\n".join([*looks, verdict]), "\n".join(wanted))


def _parted(line: str) -> tuple[str, str]:
    """What stands before, and what behind, the last '=' or ': ' of a line."""
    begun, _, value = line.strip().replace(": ", "=").rpartition("=")
    return begun, value


def without_carries(digits: int, random: Random) -> tuple[int, int]:
    """Two numbers with so many digits, none 0 in front, of which no column adds up to more than 9."""
    left = right = 0
    for place in range(digits):
        least = 1 if place == 0 else 0
        digit = random.randint(least, 9 - least)
        left, right = 10 * left + digit, 10 * right + random.randint(least, 9 - digit)
    return left, right


def columns(left: int, right: int, random: Random, slips: float, *, digits_only: bool = False) -> tuple[list[str], str]:
    """The lines of a written addition and its result. A column's sum is wrong with probability `slips`, the carry follows it; and the result is miscopied at `slips` / 6.

    digits_only: a wrong sum is another digit, so that nothing is carried.
    """
    lines, digits, carry = list[str](), "", 0
    for a, b in zip(reversed(str(left)), reversed(str(right)), strict=True):
        value = int(a) + int(b) + carry
        if random.random() < slips:
            value = random.choice([d for d in range(10) if d != value]) if digits_only else wrong_number(value, random)
        lines.append(f"{a}+{b}+{carry}={value}")
        carry, digits = value // 10, str(value % 10) + digits
    result = int(f"{carry}{digits}")
    return lines, str(wrong_number(result, random) if random.random() < slips / 6 else result)
