"""`check-and-fix`: a quick first answer, then a request to check it; the second answer is graded."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from string import ascii_uppercase
from typing import Any

from etude.errors import InputError
from etude.tasks.base import Environment
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.generated import Problem
from etude.tasks.builtin.slips import wrong_number
from etude.tasks.revisions import REQUESTS, RevisionEnvironment, judge_attempts
from etude.types import Message, Task, Trajectory

REQUEST = Message("user", REQUESTS["short"])
OPTIONS = 4


class CheckAndFix(Arithmetic):
    """Turn one: 'quick: 9*8+19' -> 'answer: 81'. Turn two: 'check and fix' -> '9*8=72', '72+19=91', 'answer: 91'.

    Expressions and difficulty are those of `arithmetic`.

    looks: requests to check in an episode; with more than one, every further answer works the problem out once more. choices: share of the problems that come with four
    options, 'A) 91' one to a line, and are answered by a letter.
    """

    name = "check-and-fix"
    prefix = "quick: "
    max_turns = 2
    instruction = "Answer at once with one line 'answer: X'. You will then be asked to check it in short steps and to end with a line 'answer: X' again."

    environment_weights = Arithmetic.reward_weights

    def __init__(self, *, looks: int = 1, choices: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        if looks < 1 or not 0 <= choices <= 1:
            raise InputError(f"looks is {looks}, choices {choices}; expected at least 1, and a share in [0, 1]")
        self.max_turns, self.choices = 1 + looks, choices

    def draw(self, random: Random) -> Problem:
        problem = super().draw(random)
        if not self.choices or random.random() >= self.choices:
            return problem
        values = [int(problem.answer)]
        while len(values) < OPTIONS:
            if (near := wrong_number(values[0], random)) not in values:
                values.append(near)
        random.shuffle(values)
        letter = ascii_uppercase[values.index(int(problem.answer))]
        asked = "\n".join([problem.prompt, *(f"{name}) {value}" for name, value in zip(ascii_uppercase, values, strict=False))])
        return Problem(problem.key, asked, letter, {**problem.info, "values": values})

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        lines, answer = super().work(task, random, slips)
        values = task.info.get("values")
        if values is None:
            return lines, answer
        # Work that leads to none of the options ends in a guess.
        return lines, ascii_uppercase[values.index(int(answer)) if int(answer) in values else random.randrange(OPTIONS)]

    def environment(self) -> Environment:
        return RevisionEnvironment(REQUEST.content, self.max_turns)

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        return judge_attempts(trajectory, super().verify_trajectory)

    def conversation(self, task: Task, seed: int) -> list[Message]:
        random = Random(f"{task.id}/conversation/{seed}")
        # The first answer comes from work that is not shown, and goes wrong more often.
        _, first = self.work(task, random, min(0.9, 1.5 * self.slips))
        said = [*task.messages, Message("assistant", f"answer: {first}")]
        for _ in range(self.max_turns - 1):
            said += [REQUEST, Message("assistant", self._written(random, *self.work(task, random, self.slips)))]
        return said
