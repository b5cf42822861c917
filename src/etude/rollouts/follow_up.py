"""A second phase of rollouts: attempts at tasks that were made from the first phase's attempts, by the same weights.

A critique of a solution, a correction, a reply: what is asked depends on what was just written, so that it is always the policy's own newest text that is worked on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rollouts.group import group_rollouts
from etude.tasks.base import TaskSet
from etude.types import Group, Task, Trajectory

KIND = "kind"
"""Tag of a second-phase group and of its trajectories: which kind of follow-up they are. First-phase ones have none."""


def has_room(policy: LanguageModel, task: Task, max_new_tokens: int) -> bool:
    """Whether the model reads the task's prompt whole and an answer of that many tokens still fits behind it.

    What does not fit is for the caller to leave out: were it cut instead, the reader would not see what the verdict is about.
    """
    return len(policy.render(task.opening)) + max_new_tokens <= policy.context_length


def follow_up_rollouts(
    policy: LanguageModel,
    parents: Sequence[Trajectory],
    tasks: Sequence[Task],
    task_set: TaskSet,
    params: SamplingParams,
    *,
    kind: str,
    group_size: int,
    stream: Callable[[Task, int, int], int],
    ledger: Ledger,
) -> list[Group]:
    """`group_size` attempts at each follow-up task, one group each, not judged yet. `parents[i]` is the attempt that `tasks[i]` was made from.

    Each trajectory keeps its parent (it shares none of the parent's tokens, so `fork` is 0), and carries the tag KIND, as its group does. `task_set` judges the
    follow-ups; where its `environment()` gives none they are single turns, whatever the first phase was.
    stream(task, place, sample) names the random numbers of attempt `sample` at `tasks[place]`: others than the first phase's.
    """
    groups = group_rollouts(policy, tasks, task_set, params, group_size=group_size, stream=stream, ledger=ledger)
    for parent, group in zip(parents, groups, strict=True):
        group.tags[KIND] = kind
        for trajectory in group.trajectories:
            trajectory.parent, trajectory.fork = parent, 0
            trajectory.tags[KIND] = kind
    return groups


def of_kind(groups: Sequence[Group], kind: str | None) -> list[Group]:
    """The groups of one kind of follow-up; of the first phase for None."""
    return [group for group in groups if group.tags.get(KIND) == kind]
