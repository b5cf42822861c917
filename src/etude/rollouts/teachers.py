"""Attempts by a teacher: another model, here or behind an endpoint, plays the policy's tasks in the policy's environment."""

from __future__ import annotations

from collections.abc import Sequence

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.remote import Endpoint
from etude.models.replies import Reply, count_replies
from etude.models.sampling import SamplingParams, stream_key
from etude.rollouts.conversing import Whole, held_episodes
from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.tasks.base import TaskSet
from etude.types import Message, Task, Trajectory

ROLE = "teacher"
"""The role that a teacher's calls are counted under."""


def teacher_attempts(
    teacher: LanguageModel | Endpoint,
    tasks: Sequence[Task],
    task_set: TaskSet,
    params: SamplingParams,
    *,
    samples: int,
    seed: int,
    ledger: Ledger,
    whole: Whole = lambda text: text,
) -> list[Trajectory]:
    """`samples` episodes of each task, those of a task together; not judged. An endpoint's have texts and no tokens. What a teacher writes counts as generated tokens.

    whole: what an endpoint wrote as it goes into the conversation that it is shown.
    """
    spent = Ledger()
    if isinstance(teacher, Endpoint):
        rows = [_held_with(teacher, tasks, task_set, params, (seed + sample) % 2**31, spent, whole) for sample in range(samples)]
        found = [row[i] for i in range(len(tasks)) for row in rows]
    else:
        requests = [EpisodeRequest(task, sample, stream_key(seed, ROLE, task.id, sample)) for task in tasks for sample in range(samples)]
        found = run_episodes(teacher, requests, task_set, params, max_turns=task_set.max_turns, ledger=spent)
        spent.rollouts, spent.model_calls = 0, {ROLE: spent.calls}
    ledger.restore(ledger + spent)
    return found


def _held_with(
    endpoint: Endpoint, tasks: Sequence[Task], task_set: TaskSet, params: SamplingParams, seed: int, spent: Ledger, whole: Whole
) -> list[Trajectory]:
    """One episode of each task, in which the endpoint takes the policy's part."""

    def answers(running: Sequence[int], histories: Sequence[tuple[Message, ...]]) -> list[Reply]:
        rows = endpoint.sample([Task(tasks[i].id, history) for i, history in zip(running, histories, strict=True)], params, samples=1, seed=seed)
        replies = [row[0] for row in rows]
        count_replies(spent, replies, ROLE)
        return replies

    return held_episodes(answers, [EpisodeRequest(task, 0, seed) for task in tasks], task_set, max_turns=task_set.max_turns, ledger=spent, whole=whole)
