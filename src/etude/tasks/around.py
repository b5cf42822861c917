"""Task sets around other task sets: another reward, a tool, another look at the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from etude.errors import InputError
from etude.tasks.base import Annotation, Environment, TaskSet
from etude.types import Task, Trajectory


class Around(TaskSet):
    """A task set that leaves everything to the one inside, unless a subclass says otherwise.

    Two things are not passed on, because they are about how an episode is written, which is what most subclasses change: whole conversations to imitate, and which step
    of a text is wrong. Who leaves episodes as they are passes them on.
    """

    def __init__(self, tasks: TaskSet) -> None:
        self.tasks = tasks
        self.name, self.stop = tasks.name, tasks.stop
        self.max_new_tokens, self.max_turns, self.fixed_length = tasks.max_new_tokens, tasks.max_turns, tasks.fixed_length
        self.reward_weights, self.environment_weights = tasks.reward_weights, tasks.environment_weights

    def train_task(self, seed: int, index: int) -> Task:
        return self.tasks.train_task(seed, index)

    def held_out(self) -> Sequence[Task]:
        return self.tasks.held_out()

    def prepare(self, trajectories: Sequence[Trajectory]) -> None:
        self.tasks.prepare(trajectories)

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return self.tasks.verify(task, text)

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        return self.tasks.verify_trajectory(trajectory)

    def answer_in(self, text: str) -> str | None:
        return self.tasks.answer_in(text)

    def demonstration(self, task: Task, seed: int) -> str | None:
        return self.tasks.demonstration(task, seed)

    def feedback(self, task: Task, text: str) -> str:
        return self.tasks.feedback(task, text)

    def annotate(self, task: Task, text: str) -> Annotation | None:
        return self.tasks.annotate(task, text)

    def environment(self) -> Environment | None:
        return self.tasks.environment()


def in_single_turns(tasks: TaskSet, why: str) -> TaskSet:
    """The tasks as they are. Raises InputError where they are played in an environment; `why` says what is only for tasks of single turns."""
    inner = tasks.environment()
    if inner is not None:
        inner.close()
        raise InputError(f"{tasks.name} is played in an environment of its own; {why}")
    return tasks
