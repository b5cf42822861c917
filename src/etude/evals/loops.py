"""How an agent goes round in circles, and how soon it turns back: repeated actions, and the way from the first wrong step to a change of mind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from etude.tasks.base import TaskSet
from etude.tasks.first_error import FLAWLESS
from etude.types import Trajectory, mean


def actions_of(trajectory: Trajectory) -> list[str]:
    """The turns of an episode in order, those of its starting point included."""
    start = trajectory.task.start
    given = [m.content for m in start.messages if m.role == "assistant"] if start is not None else []
    return [*given, *(s.text for s in trajectory.segments if s.author == "policy")]


def run_length(episodes: Sequence[Sequence[str]]) -> float:
    """Mean length of the runs of equal actions, one right after the other, over all episodes: 1 where nothing is repeated. NaN without an action."""
    return mean([float(len(list(run))) for actions in episodes for _, run in groupby(actions)])


def revision_delays(attempts: Sequence[Trajectory], tasks: TaskSet, revises: Callable[[str], bool]) -> list[int]:
    """Turns from the first wrong one to the first after it that `revises` says is a change of mind, of each attempt that has both, as far as the task set can tell."""
    delays: list[int] = []
    for attempt in attempts:
        actions = actions_of(attempt)
        first = tasks.first_wrong_step(attempt.task, actions)
        if first is not None and first != FLAWLESS:
            delays += [turn - first for turn in range(first + 1, len(actions)) if revises(actions[turn])][:1]
    return delays
