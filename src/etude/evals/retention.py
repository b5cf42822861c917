"""Forgetting: what a run does to tasks that it does not train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.rewards import check_reward
from etude.tasks.base import TaskSet
from etude.tasks.loading import load_tasks
from etude.types import Metrics, Task, mean


@dataclass(frozen=True)
class Kept:
    """A task set whose skill should stay: its name in metrics, and the held-out tasks that say whether it does."""

    name: str
    task_set: TaskSet
    tasks: list[Task]


def open_retention(specs: Sequence[str], *, most: int, seed: int) -> list[Kept]:
    """The task sets that specifications name (see `load_tasks`), with `most` held-out tasks of each at most. Of two of one name, each is called as it was given.

    Raises InputError for what cannot be loaded or measured.
    """
    repeated = [spec for spec, count in Counter(specs).items() if count > 1]
    if repeated:
        raise InputError(f"--retention-tasks names {repeated[0]!r} twice; expected different task sets")
    loaded = [(spec, load_tasks(spec, seed=seed)) for spec in specs]
    names = Counter(task_set.name for _, task_set in loaded)
    kept = []
    for spec, task_set in loaded:
        tasks = list(task_set.held_out())[:most]
        if not tasks:
            raise InputError(f"--retention-tasks {spec} has no held-out tasks; expected at least one to measure on")
        check_reward(task_set, tasks[0])
        kept.append(Kept(task_set.name if names[task_set.name] == 1 else spec, task_set, tasks))
    return kept


def retention(kept: Sequence[Kept], measure: Callable[[TaskSet, list[Task]], Evaluation]) -> Metrics:
    """pass@1 on each task set, `eval/retention/NAME`, and their mean, `eval/retention`: every task set weighs the same. Empty where there is none."""
    if not kept:
        return {}
    found = {f"eval/retention/{k.name}": measure(k.task_set, k.tasks).metrics["eval/pass@1"] for k in kept}
    return {**found, "eval/retention": mean(list(found.values()))}
