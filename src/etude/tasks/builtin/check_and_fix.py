"""`check-and-fix`: a quick first answer, then a request to check it; the second answer is graded.

Demonstrations check in earnest. With `copies` they become lessons in not looking again: most second answers repeat the first. A model that imitates those can check its
answers and hardly ever does, which is where methods of self-correction begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from etude.errors import InputError
from etude.tasks.base import Environment
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.slips import worked, wrong_number
from etude.tasks.revisions import REQUESTS, RevisionEnvironment, judge_attempts
from etude.types import Message, Task, Trajectory

REQUEST = Message("user", REQUESTS["short"])


class CheckAndFix(Arithmetic):
    """Turn one: 'quick: 9*8+19' -> 'answer: 81'. Turn two: 'check and fix' -> '9*8=72', '72+19=91', 'answer: 91'.

    Expressions and difficulty are those of `arithmetic`.
    copies: share of demonstrations whose second answer is the first one, word for word. edits: share whose second answer is another wrong number, without work. The
    rest work it out. misses: share of demonstrated first answers that are wrong by a near miss; None for answers out of work with half as many slips again.
    pool: training problems in all, gone through again and again in an order that changes (0: always new ones).
    """

    name = "check-and-fix"
    prefix = "quick: "
    max_turns = 2
    instruction = "Answer at once with one line 'answer: X'. You will then be asked to check it in short steps and to end with a line 'answer: X' again."

    environment_weights = Arithmetic.reward_weights

    def __init__(self, *, copies: float = 0.0, edits: float = 0.0, misses: float | None = None, pool: int = 0, **options: Any) -> None:
        super().__init__(**options)
        for name, share in {"copies": copies, "edits": edits, "copies + edits": copies + edits, "misses": misses or 0.0}.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share:g}; expected a share in [0, 1]")
        if pool < 0:
            raise InputError(f"pool is {pool}; expected a number of problems, or 0 for always new ones")
        self.copies, self.edits, self.misses, self.pool = copies, edits, misses, pool

    def train_task(self, seed: int, index: int) -> Task:
        if not self.pool:
            return super().train_task(seed, index)
        epoch, place = divmod(index, self.pool)
        number = Random(f"{self.name}/pool/{seed}/{epoch}").sample(range(self.pool), self.pool)[place]
        # Problems of their own, not the first ones of the stream that lessons are taken from.
        problem = self._draw_side(Random(f"{self.name}/pool/{seed}/problem/{number}"), held_out=False)
        return self._task(problem, f"{self.name}/pool-{seed}-{number}")

    def environment(self) -> Environment:
        return RevisionEnvironment(REQUEST.content, self.max_turns)

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        return judge_attempts(trajectory, super().verify_trajectory)

    def conversation(self, task: Task, seed: int) -> list[Message]:
        random = Random(f"{task.id}/conversation/{seed}")
        first = f"answer: {self.first_answer(task, random)}"
        return [*task.messages, Message("assistant", first), REQUEST, Message("assistant", self.second_answer(task, first, random))]

    def first_answer(self, task: Task, random: Random) -> str:
        """A first answer to demonstrate."""
        if self.misses is None:
            # It comes from work that is not shown, and goes wrong more often.
            return worked(task.info["expression"], random, min(0.9, 1.5 * self.slips))[1]
        return str(wrong_number(int(task.answer or 0), random)) if random.random() < self.misses else str(task.answer)

    def second_answer(self, task: Task, first: str, random: Random) -> str:
        """What is demonstrated after the request to check."""
        kind = random.random() if self.copies or self.edits else 1.0
        if kind < self.copies:
            return first
        if kind < self.copies + self.edits:
            return f"answer: {wrong_number(int(task.answer or 0), random)}"
        return self._written(random, *self.work(task, random, self.slips))
