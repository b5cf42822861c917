"""An environment of the user's own around tasks of any kind."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from etude.errors import InputError
from etude.tasks.around import Around
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.tasks.user_code import describe, describe_value, finite_number, load_object, source_file, where
from etude.types import Message, Role, Task, Trajectory

MESSAGES = "a text, a list of Message, or a list of {'role': ..., 'content': ...}"
STEP = "an EnvironmentStep or a tuple (messages, reward, done) or (messages, reward, done, info)"


class EnvironmentClass:
    """A user's class with `reset(task)`, `step(text)` and, if it likes, `close()`; makes checked single-use environments.

    A constructor parameter called `seed`, if it has one, receives the run's seed.
    """

    def __init__(self, cls: Any, name: str, seed: int = 0) -> None:
        self.name = name
        self.file = source_file(cls)
        self._class = cls
        self._arguments = _constructor_arguments(cls, name, seed)
        turns = getattr(cls, "max_turns", 0)
        if not isinstance(turns, int) or turns < 0:
            raise InputError(f"--env {name} has max_turns = {describe_value(turns)}; expected a positive whole number")
        self.max_turns: int = turns

    @classmethod
    def load(cls, spec: str, seed: int = 0) -> EnvironmentClass:
        """From `file.py:Class`. Raises InputError when there is no such class, or it lacks a method or needs constructor arguments."""
        return cls(load_object(spec, "--env"), spec, seed)

    def make(self) -> CheckedEnvironment:
        """A fresh environment for one episode."""
        try:
            return CheckedEnvironment(self._class(**self._arguments), self)
        except Exception as error:
            raise InputError(f"--env {self.name} could not be constructed: {describe(error)} ({where(error, self.file)})") from error


class CheckedEnvironment(Environment):
    """Passes everything on to the user's environment, checks what it answers and brings it into one form. Errors name the task."""

    def __init__(self, inner: Any, kind: EnvironmentClass) -> None:
        self._inner = inner
        self._kind = kind
        self._task_id = "?"

    def reset(self, task: Task) -> Sequence[Message]:
        self._task_id = task.id
        messages = self._messages(self._call("reset", task), "reset(task)", MESSAGES)
        if not messages:
            raise self._wrong("reset(task)", "no messages", f"{MESSAGES} that opens the episode (usually task.messages)")
        return messages

    def step(self, text: str) -> EnvironmentStep:
        value = self._call("step", text)
        if isinstance(value, EnvironmentStep):
            messages, reward, done, info = value.messages, value.reward, value.done, value.info
        elif isinstance(value, tuple) and len(value) in (3, 4):
            messages, reward, done, info = (*value, None)[:4]
        else:
            raise self._wrong("step(text)", describe_value(value), STEP)
        return EnvironmentStep(
            messages=self._messages(() if messages is None else messages, "messages of step(text)", MESSAGES),
            reward=self._number(reward, "reward of step(text)", "a finite number"),
            done=self._flag(done),
            info=self._info(info),
        )

    def close(self) -> None:
        if hasattr(self._inner, "close"):
            self._call("close")

    def snapshot(self) -> Any:
        return self._call("snapshot") if hasattr(self._inner, "snapshot") else super().snapshot()

    def restore(self, state: Any) -> None:
        if hasattr(self._inner, "restore"):
            self._call("restore", state)
        else:
            super().restore(state)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._inner, method)(*arguments)
        except Exception as error:
            place = where(error, self._kind.file)
            raise InputError(f"--env {self._kind.name}: {method} failed on task {self._task_id!r}: {describe(error)} ({place})") from error

    def _wrong(self, what: str, got: str, expected: str) -> InputError:
        return InputError(f"--env {self._kind.name}: {what} is {got} on task {self._task_id!r}; expected {expected}")

    def _messages(self, value: Any, what: str, expected: str) -> tuple[Message, ...]:
        if isinstance(value, str):
            return (Message("user", value),)
        if not isinstance(value, (list, tuple)):
            raise self._wrong(what, describe_value(value), expected)
        messages = []
        for item in value:
            if isinstance(item, Mapping):
                item = Message(item["role"], item["content"]) if set(item) >= {"role", "content"} else item
            if not isinstance(item, Message) or item.role not in get_args(Role) or not isinstance(item.content, str):
                raise self._wrong(what, f"a list with {describe_value(item)} in it", f"{expected}, roles being {', '.join(get_args(Role))}")
            messages.append(item)
        return tuple(messages)

    def _number(self, value: Any, what: str, expected: str) -> float:
        number = finite_number(value)
        if number is None:
            raise self._wrong(what, describe_value(value), expected)
        return number

    def _flag(self, value: Any) -> bool:
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            value = value.item()
        if not isinstance(value, bool):
            raise self._wrong("done of step(text)", describe_value(value), "True or False")
        return value

    def _info(self, value: Any) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._wrong("info of step(text)", describe_value(value), "a dict")
        if "correct" not in value:
            return value
        correct = self._number(value["correct"], "info['correct'] of step(text)", "a number from 0 to 1")
        if not 0 <= correct <= 1:
            raise self._wrong("info['correct'] of step(text)", describe_value(correct), "a number from 0 to 1")
        return {**value, "correct": correct}


class EnvironmentTaskSet(Around):
    """Tasks of any kind, practised in a user's environment. The environment judges: what the tasks' own verifier would say is not used."""

    def __init__(self, tasks: TaskSet, kind: EnvironmentClass) -> None:
        super().__init__(tasks)
        self._kind = kind
        self.reward_weights, self.environment_weights = TaskSet.reward_weights, TaskSet.environment_weights
        self.max_turns = kind.max_turns or tasks.max_turns

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        raise InputError(f"the environment {self._kind.name} judges whole episodes; a single text cannot be verified. Run episodes, or give --reward too")

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        return {}

    def environment(self) -> Environment:
        return self._kind.make()


def _constructor_arguments(cls: Any, name: str, seed: int) -> dict[str, Any]:
    """Keyword arguments to construct it with; refuses what cannot be an environment."""
    if not inspect.isclass(cls):
        raise InputError(f"--env {name} is {describe_value(cls)}; expected a class with reset(task) and step(text)")
    missing = [method for method in ("reset", "step") if not callable(getattr(cls, method, None)) or method in getattr(cls, "__abstractmethods__", ())]
    if missing:
        raise InputError(f"--env {name} has no method {' and '.join(missing)}; expected a class with reset(task) and step(text)")
    for method, argument in (("reset", "task"), ("step", "text")):
        try:
            inspect.signature(getattr(cls, method)).bind(None, None)
        except TypeError as error:
            raise InputError(f"--env {name}: {method} cannot be called as {method}({argument}) ({error}); expected def {method}(self, {argument})") from None
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        return {}
    arguments = {"seed": seed} if "seed" in signature.parameters else {}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise InputError(f"--env {name} needs constructor arguments ({error}); expected a class that can be made with no arguments, or with seed") from None
    return arguments
