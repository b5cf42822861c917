"""A reward function of the user's own over tasks of any kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etude.errors import InputError
from etude.tasks.around import Around
from etude.tasks.base import TaskSet
from etude.tasks.user_code import describe, describe_value, finite_number, load_object, source_file, where
from etude.types import Message, Segment, Task, Trajectory

EXPECTED = "a finite number (float, int or bool) or a dict of named numbers"


class RewardFunction:
    """A user's `score(task, text)`, checked on every call.

    A parameter called `trajectory`, if it has one, receives the whole episode. What it returns becomes named components: a number is the total, `reward`;
    a dict keeps its names, and its total is its own entry `reward` or, where there is none, the sum of its entries.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.name = name
        self._function = function
        self._file = source_file(function)
        self._wants_trajectory = _wants_trajectory(function, name)

    @classmethod
    def load(cls, spec: str) -> RewardFunction:
        """From `file.py:function`. Raises InputError when there is no such function or it cannot be called with (task, text)."""
        return cls(load_object(spec, "--reward"), spec)

    def __call__(self, trajectory: Trajectory) -> dict[str, float]:
        """Components of the judgement, `reward` among them.

        Raises InputError naming the task when the function raises or returns something else than finite numbers.
        """
        task, text = trajectory.task, trajectory.last_text
        try:
            value = self._function(task, text, trajectory=trajectory) if self._wants_trajectory else self._function(task, text)
        except Exception as error:
            raise InputError(
                f"--reward {self.name} failed on task {task.id!r}: {describe(error)} ({where(error, self._file)}); "
                f"expected {EXPECTED} for any text, also an empty one"
            ) from error
        if isinstance(value, Mapping):
            if not value or not all(isinstance(name, str) for name in value):
                raise self._wrong(task, f"returned {describe_value(value)}")
            components = {name: self._number(task, component, f"returned {describe_value(component)} for {name!r}") for name, component in value.items()}
            components.setdefault("reward", sum(components.values()))
            return components
        return {"reward": self._number(task, value, f"returned {describe_value(value)}")}

    def _number(self, task: Task, value: Any, what: str) -> float:
        number = finite_number(value)
        if number is None:
            raise self._wrong(task, what)
        return number

    def _wrong(self, task: Task, what: str) -> InputError:
        place = getattr(getattr(self._function, "__code__", None), "co_firstlineno", None)
        line = f" (defined in line {place})" if place is not None else ""
        return InputError(f"--reward {self.name}{line} {what} on task {task.id!r}; expected {EXPECTED}")


class RewardedTaskSet(Around):
    """Tasks of any kind, judged by a reward function.

    `correct`, what pass@k counts, is the first of these that exists: the function's own component `correct`; the tasks' own verdict, where they have reference
    answers; the function's total, cut to [0, 1]. In an environment the function's total is added to the environment's reward.
    """

    def __init__(self, tasks: TaskSet, reward: RewardFunction, *, has_verdict: Callable[[Task], bool] = lambda task: True) -> None:
        """`has_verdict` says whether `tasks` can verify a task by itself."""
        super().__init__(tasks)
        self._reward = reward
        self._has_verdict = has_verdict
        self.reward_weights = {"reward": 1.0}
        self.environment_weights = {"environment": 1.0, "reward": 1.0}

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return self.verify_trajectory(Trajectory(task, [], [Segment([], "policy", text)], "eos"))

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        own = dict(self.tasks.verify_trajectory(trajectory)) if self._has_verdict(trajectory.task) else {}
        components = {**own, **self._reward(trajectory)}
        if "environment_reward" not in trajectory.tags:
            components.setdefault("correct", min(1.0, max(0.0, components["reward"])))
        return components

    def conversation(self, task: Task, seed: int) -> Sequence[Message] | None:
        return self.tasks.conversation(task, seed)

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        return self.tasks.first_wrong_step(task, steps)


def _wants_trajectory(function: Any, name: str) -> bool:
    """Whether it is called with the trajectory too; refuses what cannot be called with (task, text)."""
    if not callable(function):
        raise InputError(f"--reward {name} is {describe_value(function)}; expected a function score(task, text) that returns {EXPECTED}")
    if inspect.isclass(function):
        raise InputError(f"--reward {name} is a class; expected a function score(task, text), or an instance with __call__(task, text)")
    if inspect.iscoroutinefunction(function):
        raise InputError(f"--reward {name} is an async function; expected a plain one, score(task, text)")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built-in functions without a signature: the first call shows
        return False
    wants = "trajectory" in signature.parameters
    try:
        signature.bind(None, "", **({"trajectory": None} if wants else {}))
    except TypeError as error:
        raise InputError(
            f"--reward {name} takes {signature}, which cannot be called with (task, text) ({error}); "
            "expected score(task, text) or score(task, text, trajectory)"
        ) from None
    return wants
