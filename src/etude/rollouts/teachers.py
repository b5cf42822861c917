"""Attempts by a teacher: another model, here or behind an endpoint, plays the policy's tasks in the policy's environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.remote import Endpoint
from etude.models.replies import count_replies
from etude.models.sampling import SamplingParams, stream_key
from etude.rollouts.episodes import EpisodeRequest, close_all, run_episodes
from etude.tasks.base import Environment, TaskSet
from etude.types import Message, Segment, Task, Trajectory

ROLE = "teacher"
"""The role that a teacher's calls are counted under."""


Whole = Callable[[str], str]
"""Puts back what a sampler cut off the end of a turn, such as the mark that it stopped at."""


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
    """One episode of each task, turn by turn, in which the endpoint takes the policy's part."""
    environments: list[Environment | None] = [task_set.environment() for _ in tasks]
    try:
        histories = [list(e.reset(t) if e is not None else t.opening) for t, e in zip(tasks, environments, strict=True)]
        trajectories = [Trajectory(task, [], [], "length") for task in tasks]
        running = list(range(len(tasks)))
        for _ in range(task_set.max_turns):
            if not running:
                break
            replies = [row[0] for row in endpoint.sample([Task(tasks[i].id, tuple(histories[i])) for i in running], params, samples=1, seed=seed)]
            count_replies(spent, replies, ROLE)
            going_on = []
            for i, reply in zip(running, replies, strict=True):
                trajectories[i].segments.append(Segment([], "policy", reply.text))
                environment = environments[i]
                answer = environment.step(reply.text) if environment is not None else None
                spent.environment_steps += answer is not None
                if answer is None or answer.done:
                    trajectories[i].stop_reason = "environment" if answer is not None else "eos"
                    continue
                histories[i] += [Message("assistant", whole(reply.text)), *answer.messages]
                trajectories[i].segments.append(Segment([], "tool", "\n".join(m.content for m in answer.messages)))
                going_on.append(i)
            running = going_on
    finally:
        close_all([e for e in environments if e is not None])
    return trajectories
