"""`check-and-fix`: a quick first answer, then a request to check it; the second answer is graded."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from etude.tasks.answers import final_answer, same_answer
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.slips import worked
from etude.types import Message, Task

REQUEST = Message("user", "check and fix")


class CheckAndFix(Arithmetic):
    """Turn one: 'quick: 9*8+19' -> 'answer: 81'. Turn two: 'check and fix' -> '9*8=72', '72+19=91', 'answer: 91'.

    Expressions and difficulty are those of `arithmetic`.
    """

    name = "check-and-fix"
    prefix = "quick: "
    max_turns = 2
    instruction = "Answer at once with one line 'answer: X'. You will then be asked to check it in short steps and to end with a line 'answer: X' again."

    def environment(self) -> Environment:
        return CheckAndFixEnvironment(self)

    def conversation(self, task: Task, seed: int) -> list[Message]:
        random = Random(f"{task.id}/conversation/{seed}")
        # The first answer comes from work that is not shown, and goes wrong more often.
        _, first = worked(task.info["expression"], random, min(0.9, 1.5 * self.slips))
        checked = self._written(random, *self.work(task, random, self.slips))
        return [*task.messages, Message("assistant", f"answer: {first}"), REQUEST, Message("assistant", checked)]


class CheckAndFixEnvironment(Environment):
    """Two turns: any first answer, the request to check it, and the verdict on the second. `info["first_correct"]` tells what the first was worth."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._task: Task | None = None
        self._first: float | None = None

    def reset(self, task: Task) -> Sequence[Message]:
        self._task = task
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        assert self._task is not None, "step before reset"
        if self._first is None:
            answer = final_answer(text)
            self._first = float(same_answer(answer, self._task.answer or ""))
            return EnvironmentStep(messages=(REQUEST,), info={"first_correct": self._first})
        verdict = self._tasks.verify(self._task, text)
        return EnvironmentStep(reward=verdict["correct"], done=True, info={**verdict, "first_correct": self._first})

    def snapshot(self) -> tuple[Task | None, float | None]:
        return self._task, self._first

    def restore(self, state: tuple[Task | None, float | None]) -> None:
        self._task, self._first = state
