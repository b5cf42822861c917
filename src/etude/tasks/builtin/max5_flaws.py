"""`max5-flaws`: solutions of `max5` with a right answer, half of them flawed; the first wrong step is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.builtin.generated import FamilyOptions, Problem
from etude.tasks.builtin.max5 import Max5
from etude.tasks.builtin.slips import wrong_number
from etude.tasks.first_error import FLAWLESS, SHORT, Checked, question, split_steps
from etude.types import Task


class Max5Flaws(Max5):
    """'bin 12 14: 3+4 9+8', 'answer: H', '0 3+4=8', '1 9+8=17', '2 answer: H' -> '0:7', 'answer: 0'; where no step is wrong, 'answer: -1'.

    The written work is the judge's own result for each step, until one differs from what stands there ('?' for an answer behind no sums at all). The problems are
    those of `max5`, on the same side of its held-out split.

    sums, high: as for `max5`. errors: how often a sum is wrong in the flawed half. jumps: share of the flawed half that is only an answer. `slips` of a
    demonstration misjudge one step in three times as many. misnames: how often a demonstration that found a flaw names any other step (default: as often as `slips`
    says), which leaves its verdict as it is.
    """

    name = "max5-flaws"
    instruction = (
        "Check the numbered steps in order, and write your own result for each up to the first wrong one. End with a line 'answer: X', its number or -1."
    )

    def __init__(self, *, errors: float = 0.4, jumps: float = 0.2, misnames: float | None = None, **options: Unpack[Max5FlawsOptions]) -> None:
        super().__init__(jumps=jumps, **options)
        if not 0 < errors < 1:
            raise InputError(f"errors is {errors}; expected a rate between 0 and 1")
        if misnames is not None and not 0 <= misnames <= 1:
            raise InputError(f"misnames is {misnames}; expected a share in [0, 1]")
        self.errors, self.misnames = errors, misnames
        self.max_new_tokens = (self.sums + 1) * (4 + len(str(2 * self.high))) + 8

    def draw(self, random: Random) -> Problem:
        problem = super().draw(random)
        solved = Task("", (), problem.answer, problem.info)
        steps, first = self._solution(solved, random, flawed=random.random() < 0.5)
        asked = question(SHORT, problem=problem.prompt, reference=problem.answer, steps=steps)[0].content
        info = {**problem.info, "problem": problem.prompt, "reference": problem.answer, "steps": steps, "first_wrong": first}
        return Problem(key=problem.key, prompt=asked, answer=str(first), info=info)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        checked, pairs = Checked.of(task), task.info["pairs"]
        lines: list[str] = []
        if len(checked.steps) == 1:
            return ["0:?"], "0"
        found = FLAWLESS
        values: list[int] = []
        for number, step in enumerate(checked.steps):
            if number < len(pairs):
                values.append(sum(pairs[number]))
                own, stands = str(values[-1]), step.rpartition("=")[2]
            else:
                own, stands = self.bin_of(max(values)), checked.reference
            if random.random() < slips / 3:
                # Misjudged: what is wrong passes, and what is right is thought to be something else.
                own = stands if own != stands else str(wrong_number(int(own), random)) if own.isdigit() else "?"
            lines.append(f"{number}:{own}")
            if own != stands:
                found = number
                break
        if found != FLAWLESS and random.random() < (slips if self.misnames is None else self.misnames):
            found = random.choice([n for n in range(len(checked.steps)) if n != found])
        return lines, str(found)

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        """Unknown: what is written here is a judgement, whose own steps nothing checks."""
        return None

    def _solution(self, task: Task, random: Random, *, flawed: bool) -> tuple[list[str], int]:
        """Steps that lead to the right answer, and the first wrong one among them."""
        if flawed and random.random() < self.jumps:
            return [f"answer: {task.answer}"], 0
        while True:
            lines, answer = self.added(task, random, self.errors if flawed else 0.0)
            steps = split_steps("\n".join([*lines, f"answer: {answer}"]))
            first = super().first_wrong_step(task, steps)
            assert first is not None
            if answer == task.answer and (first != FLAWLESS) == flawed:
                return steps, first


class Max5FlawsOptions(FamilyOptions, total=False):
    """What `max5-flaws` passes on."""

    sums: int
    high: int
