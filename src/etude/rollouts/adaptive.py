"""Adaptive rollouts: rounds of sample, judge, allocate. How the first attempts at a task went decides how many more it gets, and under which prompt.

One update's worth of attempts is gathered under one policy, so that later rounds are no more off-policy than the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.rollouts.episodes import EpisodeRequest
from etude.types import Group, Message, Task, Trajectory

Attempt = Callable[[Sequence[EpisodeRequest]], list[Trajectory]]
"""Makes attempts: one trajectory for each request, in their order (`PolicyOptimization.attempt`)."""
Judge = Callable[[Sequence[Group]], None]
"""Fills in the rewards of new attempts (`PolicyOptimization.judge`)."""
Allocator = Callable[[Sequence[Group]], Sequence[int] | None]
"""From everything that was tried so far, one judged group a task, to further attempts at each; None or all zeros ends the step."""
Prompt = Callable[[Group], tuple[Message, ...] | None]
"""From a task's group so far to what its next attempts are shown; None for the task's own messages."""

ROUND = "round"
"""Tag of a trajectory: the round that it was made in, from 0."""


def adaptive_rollouts(
    tasks: Sequence[Task],
    *,
    first: int,
    attempt: Attempt,
    stream: Callable[[Task, int, int], int],
    judge: Judge,
    allocate: Allocator,
    prompt: Prompt | None = None,
) -> list[Group]:
    """`first` attempts at each task, then as many more as `allocate` gives, round after round until it gives none. One judged group a task, in order.

    stream(task, place, sample) names the random numbers of attempt `sample` at `tasks[place]`. Attempts are numbered through the rounds, so that every one has
    its own stream and the first round's are those that `group_rollouts` would make. A round is one call of `attempt`: all its attempts are in one batch.
    prompt: what a task's attempts after the first round are shown; it is asked anew in every round, once a task that gets attempts.
    """
    groups = [Group(task.id, []) for task in tasks]
    wanted: Sequence[int] | None = [first] * len(tasks)
    number = 0
    while wanted is not None and any(wanted):
        shown = [prompt(group) if number and more and prompt is not None else None for group, more in zip(groups, wanted, strict=True)]
        requests: list[EpisodeRequest] = []
        owners: list[int] = []
        for place, (task, more) in enumerate(zip(tasks, wanted, strict=True)):
            for sample in range(len(groups[place]), len(groups[place]) + more):
                requests.append(EpisodeRequest(task, sample, stream(task, place, sample), shown[place]))
                owners.append(place)
        new = [Group(task.id, []) for task in tasks]
        for place, trajectory in zip(owners, attempt(requests), strict=True):
            trajectory.tags[ROUND] = number
            new[place].trajectories.append(trajectory)
        judge([group for group in new if group.trajectories])
        for group, more in zip(groups, new, strict=True):
            group.trajectories += more.trajectories
        number += 1
        wanted = allocate(groups)
    return groups
