"""A task set whose attempts other processes judge, and whose environments other processes hold. Results come back in order, whoever finishes first."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from etude.distributed.crew import Asked, Crew, Gone
from etude.distributed.task_worker import UNKNOWN, Call, TaskOpening, TaskWorker
from etude.errors import InputError, WorkerLost, first_line
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.types import Message, Task, Trajectory


class TaskWorkers:
    """Processes that each hold the task set. A call whose process dies is made again in another.

    Raises InputError for a task set that they cannot open, and whatever the tasks, the reward or an environment raise.
    """

    def __init__(self, ray: Any, opening: TaskOpening, count: int, *, cpus: int) -> None:
        given = ray.put(opening)
        self._crew = Crew(ray, TaskWorker, count, "environment worker", cpus=cpus, gpus=0.0, opening=lambda: (given,))
        self._environments = [0] * count
        """How many each worker holds."""
        self._begun = 0

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        return list(self._crew.facts)

    def judged(self, trajectories: Sequence[Trajectory]) -> list[dict[str, float]]:
        """The components of each trajectory's judgement, dealt out to all workers."""
        count = len(self._crew)
        parts = {i: list(trajectories[i::count]) for i in range(count) if trajectories[i::count]}
        judged: list[dict[str, float]] = [{} for _ in trajectories]
        while parts:
            answers, gone = self._crew.settle({i: self._crew.ask(i, "judge", part) for i, part in parts.items()})
            for i, components in answers.items():
                judged[i::count] = components
                del parts[i]
            for i, error in gone.items():
                self._crew.replace(i, error, f", and {len(parts[i])} attempts are judged again")
        return judged

    def verified(self, task: Task, text: str) -> dict[str, float]:
        """The components of the judgement of a text."""
        while True:
            try:
                return self._crew.answer(0, self._crew.ask(0, "verify", task, text))
            except Gone as error:
                self._crew.replace(0, error)

    def environment(self) -> Environment:
        """A fresh environment in the worker that holds the fewest."""
        number = min(range(len(self._crew)), key=lambda i: (self._environments[i], i))
        self._environments[number] += 1
        self._begun += 1
        return _ElsewhereEnvironment(self, number, self._begun)

    def close(self) -> None:
        """End the processes."""
        self._crew.close()


class _ElsewhereEnvironment(Environment):
    """One environment in a worker. What was asked of it is kept, so that it can be brought back when its worker dies."""

    def __init__(self, workers: TaskWorkers, worker: int, number: int) -> None:
        self._workers, self._worker, self._number = workers, worker, number
        self._crew = workers._crew
        self._calls: list[Call] = []
        self._task_id = "?"
        self._begun: tuple[str, Asked] | None = None
        """What `step` will be asked, where the worker has been asked already."""
        self._closed = False
        self._crew.ask(worker, "open", number)

    def reset(self, task: Task) -> Sequence[Message]:
        self._task_id = task.id
        return self._call("reset", task)

    def begin(self, text: str) -> None:
        self._begun = text, self._crew.ask(self._worker, "act", self._number, "step", (text,))

    def step(self, text: str) -> EnvironmentStep:
        return self._call("step", text)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._workers._environments[self._worker] -= 1
        try:
            self._crew.answer(self._worker, self._crew.ask(self._worker, "shut", self._number))
        except Gone:
            # It ended with its worker, which whoever asks next replaces.
            return

    def product(self) -> str | None:
        return self._call("product")

    def snapshot(self) -> Any:
        return self._call("snapshot")

    def restore(self, state: Any) -> None:
        self._call("restore", state)

    def _call(self, method: str, *arguments: Any) -> Any:
        begun, self._begun = self._begun, None
        asked = begun[1] if begun is not None and (method, arguments) == ("step", (begun[0],)) else None
        while True:
            if asked is None:
                asked = self._crew.ask(self._worker, "act", self._number, method, arguments)
            try:
                state, answer = self._crew.answer(self._worker, asked)
                if state != UNKNOWN:
                    break
                self._bring_back()
            except Gone as error:
                self._crew.replace(self._worker, error, ", in which environments are played again")
            asked = None
        self._calls.append(Call(method, arguments, answer))
        return answer

    def _bring_back(self) -> None:
        """Play what was asked so far to a fresh environment in the worker of now. Raises WorkerLost for one that answers otherwise."""
        same = self._crew.answer(self._worker, self._crew.ask(self._worker, "again", self._number, self._calls))
        if not same:
            raise WorkerLost(
                f"a worker was lost, and the environment of task {self._task_id!r} answered otherwise when its episode was played again; expected answers that depend "
                "on the task and the turns alone"
            )


class JudgedElsewhere(TaskSet):
    """What goes in front of a task set's own class: judging and environments are the workers' work, all else is as it was."""

    _workers: TaskWorkers
    _has_environments: bool
    _judged: dict[int, tuple[Trajectory, Mapping[str, float]]]

    def prepare(self, trajectories: Sequence[Trajectory]) -> None:
        # With the trajectories themselves, so that none of their numbers is given to another meanwhile.
        found = self._workers.judged(trajectories)
        self._judged = {id(t): (t, components) for t, components in zip(trajectories, found, strict=True)}

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        known = self._judged.pop(id(trajectory), None)
        return known[1] if known is not None else self._workers.judged([trajectory])[0]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return self._workers.verified(task, text)

    def environment(self) -> Environment | None:
        return self._workers.environment() if self._has_environments else None


def judged_elsewhere(task_set: TaskSet, workers: TaskWorkers) -> TaskSet:
    """The same task set, of the same kind, which leaves the work to others. The given one is not changed."""
    inner = task_set.environment()
    if inner is not None:
        inner.close()
    kind = type(task_set)
    made = copy.copy(task_set)
    made.__class__ = type(kind.__name__, (JudgedElsewhere, kind), {})
    assert isinstance(made, JudgedElsewhere)
    made._workers, made._has_environments, made._judged = workers, inner is not None, {}
    return made


def pickled(task_set: TaskSet, ray: Any) -> bytes:
    """A task set that was given as an object, for other processes. Raises InputError for one that cannot be sent."""
    try:
        return ray.cloudpickle.dumps(task_set)
    except Exception as error:
        raise InputError(
            f"the task set {task_set.name} holds something that no other process can be sent ({type(error).__name__}: {first_line(error)}); give tasks, reward and env "
            "by name (file.py:name), or leave --env-workers out"
        ) from error
