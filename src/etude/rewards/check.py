"""A rehearsal of the judgement before compute is spent."""

from __future__ import annotations

import contextlib

from etude.rewards.judge import judge
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.types import Segment, Task, Trajectory

REHEARSED = ("", "answer: 1")
"""A text that a model may well write early on, and an ordinary short one."""


def check_reward(task_set: TaskSet, task: Task | None = None) -> set[str]:
    """Judge an empty and a short text on one task (default: the first training task), through the environment where there is one.

    Returns the names of the components that they were judged by. Raises InputError when the reward or the environment cannot judge them.
    """
    task = task_set.train_task(0, 0) if task is None else task
    components: set[str] = set()
    for text in REHEARSED:
        trajectory = Trajectory(task, [], [Segment([], "policy", text)], "eos")
        environment = task_set.environment()
        if environment is not None:
            step = _first_step(environment, task, text)
            trajectory.tags["environment_reward"] = step.reward
            if "correct" in step.info:
                trajectory.tags["environment_correct"] = float(step.info["correct"])
        judge([trajectory], task_set)
        components |= trajectory.rewards.keys()
    return components


def _first_step(environment: Environment, task: Task, text: str) -> EnvironmentStep:
    try:
        environment.reset(task)
        step = environment.step(text)
    except BaseException:
        # What went wrong first is what the user has to hear.
        with contextlib.suppress(Exception):
            environment.close()
        raise
    environment.close()
    return step
