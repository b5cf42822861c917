"""Groups: several independent attempts at each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.tasks.base import TaskSet
from etude.types import Group, Task, Trajectory


def group_rollouts(
    policy: LanguageModel,
    tasks: Sequence[Task],
    task_set: TaskSet,
    params: SamplingParams,
    *,
    group_size: int,
    stream: Callable[[Task, int, int], int],
    max_turns: int = 8,
    ledger: Ledger,
    ended: Callable[[Trajectory], None] = lambda trajectory: None,
) -> list[Group]:
    """`group_size` attempts at each task, one group a task.

    `stream(task, place, sample)` names the random numbers of attempt `sample` at `tasks[place]`. `ended` hears of each attempt as soon as it has ended.
    """
    requests = [EpisodeRequest(task, sample, stream(task, place, sample)) for place, task in enumerate(tasks) for sample in range(group_size)]
    trajectories = run_episodes(policy, requests, task_set, params, max_turns=max_turns, ledger=ledger, ended=ended)
    return [Group(task.id, trajectories[place * group_size : (place + 1) * group_size]) for place, task in enumerate(tasks)]
