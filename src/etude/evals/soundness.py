"""Whether right answers were reached by right steps, where a task set can check steps exactly."""

from __future__ import annotations

from collections.abc import Sequence

from etude.evals.monitors import RIGHT
from etude.tasks.base import TaskSet
from etude.tasks.first_error import FLAWLESS, split_steps
from etude.types import Metrics, Task, Trajectory, mean


def soundness(task_set: TaskSet, trajectories: Sequence[Trajectory]) -> Metrics:
    """`sound`: share of attempts with a right answer and no wrong step. `flawed`: share of the right ones that have one (flawed positives); left out where none is right.

    Empty where the task set does not check steps.
    """
    right = [t for t in trajectories if t.correct >= RIGHT]
    first = [task_set.first_wrong_step(t.task, split_steps(t.text)) for t in right]
    if None in first or (not right and not checks_steps(task_set, trajectories)):
        return {}
    found: Metrics = {"sound": sum(f == FLAWLESS for f in first) / max(1, len(trajectories))}
    return found | ({"flawed": mean([float(f != FLAWLESS) for f in first])} if right else {})


def audited(task_set: TaskSet, kept: Sequence[Trajectory]) -> Metrics:
    """`round/flawed`: share of the solutions that a round imitates that have a wrong step. Empty where the task set does not check steps, or nothing is right."""
    return {f"round/{name}": value for name, value in soundness(task_set, kept).items() if name == "flawed"}


def newest_right(task_set: TaskSet, task: Task, before: str, text: str) -> bool | None:
    """Whether what a partial solution has more than `before` is right. None where something before it is wrong already, and where the task set does not check steps."""
    first = task_set.first_wrong_step(task, split_steps(text))
    if first is None or FLAWLESS < first < len(split_steps(before)):
        return None
    return first == FLAWLESS


def checks_steps(task_set: TaskSet, trajectories: Sequence[Trajectory]) -> bool:
    """Whether the task set says of steps which is the first wrong one."""
    return bool(trajectories) and task_set.first_wrong_step(trajectories[0].task, ["answer: 1"]) is not None
