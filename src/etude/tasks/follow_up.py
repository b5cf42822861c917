"""Tasks that are made from attempts at other tasks: judge this solution, improve it, answer to it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from etude.errors import InputError
from etude.tasks.base import TaskSet
from etude.types import Task, Trajectory


class FollowUpTasks(TaskSet):
    """A task for each attempt that is handed in. There is no stream of them to train on and nothing is held out: they exist as long as the attempts do."""

    @abstractmethod
    def follow(self, attempt: Trajectory) -> Task:
        """What is asked about a judged attempt. `verify` has to judge answers to it."""

    def train_task(self, seed: int, index: int) -> Task:
        raise InputError(f"the task set {self.name} makes tasks from attempts at other tasks; expected an attempt to be handed to follow()")

    def held_out(self) -> Sequence[Task]:
        return []


def transcript(attempt: Trajectory) -> str:
    """An attempt as a reader sees it: what the policy wrote, and between its turns, marked by who wrote it, what was answered."""
    return "\n".join(s.text if s.author == "policy" else f"[{s.author}] {s.text}" for s in attempt.segments)
