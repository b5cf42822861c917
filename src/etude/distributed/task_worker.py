"""The process that judges and holds environments: it opens the task set that the run practises, and does with it what it is asked."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError, first_line
from etude.tasks.base import Environment, TaskSet
from etude.types import Task, Trajectory


@dataclass(frozen=True)
class TaskOpening:
    """What the task set is made of: what the options name, or itself, pickled, where it was given as an object (`made`)."""

    tasks: str
    reward: str | None
    env: str | None
    seed: int
    labelled: bool
    made: bytes | None
    threads: int


@dataclass(frozen=True)
class Call:
    """Something that was asked of an environment, and what it answered; a snapshot is not compared when the call is made again."""

    method: str
    arguments: tuple[Any, ...]
    answer: Any


UNKNOWN = "unknown"
"""Answer to whoever asks for an environment that another process held."""


class TaskWorker:
    """Lives in an actor; see `TaskWorkers` for who asks."""

    def ready(self, opening: TaskOpening) -> int:
        """Open the task set; returns this process's number. Raises InputError."""
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(opening.threads)
        self.task_set = _opened(opening)
        self._environments: dict[int, Environment] = {}
        return os.getpid()

    def judge(self, trajectories: Sequence[Trajectory]) -> list[dict[str, float]]:
        """The components of each trajectory's judgement."""
        self.task_set.prepare(trajectories)
        return [dict(self.task_set.verify_trajectory(trajectory)) for trajectory in trajectories]

    def verify(self, task: Task, text: str) -> dict[str, float]:
        return dict(self.task_set.verify(task, text))

    def open(self, number: int) -> None:
        """Begin an environment under a number of the driver's."""
        environment = self.task_set.environment()
        assert environment is not None, "only a task set with environments is asked for one"
        self._environments[number] = environment

    def act(self, number: int, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        """Call a method of an environment; returns it beside an empty text, or UNKNOWN."""
        if number not in self._environments:
            return UNKNOWN, None
        return "", getattr(self._environments[number], method)(*arguments)

    def again(self, number: int, calls: Sequence[Call]) -> bool:
        """Begin an environment anew and bring it to where a lost one was; says whether it answered as that one did."""
        self.open(number)
        answers = [getattr(self._environments[number], call.method)(*call.arguments) for call in calls]
        return all(given == call.answer for given, call in zip(answers, calls, strict=True) if call.method != "snapshot")

    def shut(self, number: int) -> None:
        """Close an environment."""
        environment = self._environments.pop(number, None)
        if environment is not None:
            environment.close()


def _opened(opening: TaskOpening) -> TaskSet:
    if opening.made is not None:
        # From the run's own process, as whatever Ray hands over. In bytes, so that what cannot be read here has a message of ours.
        try:
            return pickle.loads(opening.made)
        except Exception as error:
            raise InputError(
                f"the tasks were given as an object, which an environment worker cannot read ({type(error).__name__}: {first_line(error)}); give tasks, reward and "
                "env by name (file.py:name), put their code where every process can import it, or leave --env-workers out"
            ) from error
    from etude.tasks.loading import load_tasks

    return load_tasks(opening.tasks, reward=opening.reward, env=opening.env, seed=opening.seed, labelled=opening.labelled)
