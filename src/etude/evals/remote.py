"""The same measurements for a model behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.errors import InputError
from etude.evals.evaluate import Evaluation, measured
from etude.models.remote import Endpoint
from etude.models.sampling import SamplingParams
from etude.rewards import judge
from etude.tasks.base import TaskSet
from etude.types import Segment, Task, Trajectory


def evaluate_endpoint(
    endpoint: Endpoint,
    task_set: TaskSet,
    *,
    tasks: Sequence[Task],
    samples: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 0,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> Evaluation:
    """pass@k, maj@k, length and format over `samples` answers to each task. The trajectories carry texts only.

    Raises InputError for tasks in an environment: their turns need a model that runs here.
    """
    environment = task_set.environment()
    if environment is not None:
        environment.close()
        raise InputError(f"the task set {task_set.name} is practised in an environment; an endpoint is measured on single-turn tasks only")
    endpoint.check()
    params = SamplingParams(max_new_tokens=max_new_tokens or task_set.max_new_tokens, temperature=temperature, top_p=top_p, stop=tuple(task_set.stop))
    replies = endpoint.sample(tasks, params, samples=samples, seed=seed, done=done)
    rows = [
        [Trajectory(task, [], [Segment([], "policy", reply.text)], "eos" if reply.finished else "length", sample=i) for i, reply in enumerate(row)]
        for task, row in zip(tasks, replies, strict=True)
    ]
    judge([trajectory for row in rows for trajectory in row], task_set)
    metrics = measured(task_set, tasks, rows, [[reply.length for reply in row] for row in replies])
    return Evaluation(metrics, list(tasks), rows)
