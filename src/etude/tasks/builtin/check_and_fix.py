"""`check-and-fix`: a quick first answer, then a request to check it; the second answer is graded."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from etude.tasks.base import Environment
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.slips import worked
from etude.tasks.revisions import REQUESTS, RevisionEnvironment, judge_attempts
from etude.types import Message, Task, Trajectory

REQUEST = Message("user", REQUESTS["short"])


class CheckAndFix(Arithmetic):
    """Turn one: 'quick: 9*8+19' -> 'answer: 81'. Turn two: 'check and fix' -> '9*8=72', '72+19=91', 'answer: 91'.

    Expressions and difficulty are those of `arithmetic`.
    """

    name = "check-and-fix"
    prefix = "quick: "
    max_turns = 2
    instruction = "Answer at once with one line 'answer: X'. You will then be asked to check it in short steps and to end with a line 'answer: X' again."

    environment_weights = Arithmetic.reward_weights

    def environment(self) -> Environment:
        return RevisionEnvironment(REQUEST.content, self.max_turns)

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        return judge_attempts(trajectory, super().verify_trajectory)

    def conversation(self, task: Task, seed: int) -> list[Message]:
        random = Random(f"{task.id}/conversation/{seed}")
        # The first answer comes from work that is not shown, and goes wrong more often.
        _, first = worked(task.info["expression"], random, min(0.9, 1.5 * self.slips))
        checked = self._written(random, *self.work(task, random, self.slips))
        return [*task.messages, Message("assistant", f"answer: {first}"), REQUEST, Message("assistant", checked)]
