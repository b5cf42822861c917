"""`check-and-fix`: a quick first answer, then a request to check it; the second answer is graded.

Demonstrations check in earnest. With `copies` they become lessons in not looking again: most second answers repeat the first. A model that imitates those can check its
answers and hardly ever does, which is where methods of self-correction begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from string import ascii_lowercase
from typing import Any

from etude.errors import InputError
from etude.tasks.base import Environment
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.generated import Problem
from etude.tasks.builtin.slips import wrong_number
from etude.tasks.paired import keyed
from etude.tasks.revisions import REQUESTS, RevisionEnvironment, judge_attempts
from etude.types import Message, Task, Trajectory

REQUEST = Message("user", REQUESTS["short"])
OPTIONS = 4


class CheckAndFix(Arithmetic):
    """Turn one: 'quick: 9*8+19' -> 'answer: 81'. Turn two: 'check and fix' -> '9*8=72', '72+19=91', 'answer: 91'.

    Expressions and difficulty are those of `arithmetic`.
    copies: share of demonstrations whose second answer is the first one, word for word. edits: share whose second answer is another wrong number, without work. The
    rest work it out. misses: share of demonstrated first answers that are wrong by a near miss; None for answers out of work with half as many slips again.
    pool: training problems in all, gone through again and again in an order that changes (0: always new ones).
    looks: requests to check in an episode. choices: share of the problems that come with four
    options, '91=a' one to a line, and are answered by a letter, which the work looks up in a last line of its own.
    """

    name = "check-and-fix"
    prefix = "quick: "
    max_turns = 2
    instruction = "Answer at once with one line 'answer: X'. You will then be asked to check it in short steps and to end with a line 'answer: X' again."
    environment_weights = Arithmetic.reward_weights

    def __init__(
        self,
        *,
        copies: float = 0.0,
        edits: float = 0.0,
        misses: float | None = None,
        pool: int = 0,
        looks: int = 1,
        choices: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        shares = {"copies": copies, "edits": edits, "copies + edits": copies + edits, "misses": misses or 0.0, "choices": choices}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share:g}; expected a share in [0, 1]")
        if pool < 0 or looks < 1:
            raise InputError(f"pool is {pool}, looks {looks}; expected a number of problems, or 0 for always new ones, and at least 1")
        if choices and (edits or misses is not None):
            raise InputError("choices go with no edits and misses: a letter has no near miss; leave one of them out")
        self.copies, self.edits, self.misses, self.pool = copies, edits, misses, pool
        self.max_turns, self.choices = 1 + looks, choices

    def train_task(self, seed: int, index: int) -> Task:
        if not self.pool:
            return super().train_task(seed, index)
        epoch, place = divmod(index, self.pool)
        number = Random(f"{self.name}/pool/{seed}/{epoch}").sample(range(self.pool), self.pool)[place]
        # Problems of their own, not the first ones of the stream that lessons are taken from.
        problem = self._draw_side(Random(f"{self.name}/pool/{seed}/problem/{number}"), held_out=False)
        return self._task(problem, f"{self.name}/pool-{seed}-{number}")

    def draw(self, random: Random) -> Problem:
        problem = super().draw(random)
        if not self.choices or random.random() >= self.choices:
            return problem
        values = [int(problem.answer)]
        while len(values) < OPTIONS:
            if (near := wrong_number(values[0], random)) not in values:
                values.append(near)
        random.shuffle(values)
        letter = ascii_lowercase[values.index(int(problem.answer))]
        return Problem(problem.key, f"{problem.prompt}\n{keyed(values)}", letter, {**problem.info, "values": values})

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        lines, answer = super().work(task, random, slips)
        values = task.info.get("values")
        if values is None:
            return lines, answer
        if int(answer) not in values:
            # Work that leads to none of the options ends in a guess.
            return lines, random.choice(ascii_lowercase[:OPTIONS])
        letter = ascii_lowercase[values.index(int(answer))]
        return [*lines, f"{answer}={letter}"], letter

    def environment(self) -> Environment:
        return RevisionEnvironment(REQUEST.content, self.max_turns)

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        return judge_attempts(trajectory, super().verify_trajectory)

    def conversation(self, task: Task, seed: int) -> list[Message]:
        random = Random(f"{task.id}/conversation/{seed}")
        first = f"answer: {self.first_answer(task, random)}"
        said = [*task.messages, Message("assistant", first)]
        for _ in range(self.max_turns - 1):
            said += [REQUEST, Message("assistant", self.second_answer(task, first, random))]
        return said

    def first_answer(self, task: Task, random: Random) -> str:
        """A first answer to demonstrate. A letter that is given at once is a guess: otherwise lessons teach to trust the first one instead of looking it up."""
        if task.info.get("values") is not None:
            return random.choice(ascii_lowercase[:OPTIONS])
        if self.misses is None:
            # It comes from work that is not shown, and goes wrong more often.
            return self.work(task, random, min(0.9, 1.5 * self.slips))[1]
        return str(wrong_number(int(task.answer or 0), random)) if random.random() < self.misses else str(task.answer)

    def second_answer(self, task: Task, first: str, random: Random) -> str:
        """What is demonstrated after a request to check."""
        kind = random.random() if self.copies or self.edits else 1.0
        if kind < self.copies:
            return first
        if kind < self.copies + self.edits:
            return f"answer: {wrong_number(int(task.answer or 0), random)}"
        return self._written(random, *self.work(task, random, self.slips))
