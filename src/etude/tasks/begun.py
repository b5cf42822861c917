"""Episodes that begin in the middle: after turns that somebody else took, which are played to the environment before the policy takes over.

It shows whether a policy finds back from where others went wrong, which an episode of its own only shows if it goes wrong itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from etude.errors import InputError
from etude.tasks.around import Around
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.types import Message, StartingPoint, Task


class Begun(Around):
    """A task set that is played in turns, whose tasks may have starting points: the environment replays them. Judged as the tasks themselves are."""

    def __init__(self, tasks: TaskSet) -> None:
        """Raises InputError for tasks of single turns."""
        environment = tasks.environment()
        if environment is None:
            raise InputError(f"{tasks.name} has tasks of single turns; expected tasks that are played in turns, for an episode to begin in the middle of")
        environment.close()
        super().__init__(tasks)

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        return self.tasks.first_wrong_step(task, steps)

    def environment(self) -> Environment:
        inner = self.tasks.environment()
        assert inner is not None, "checked when the set was made"
        return BegunEnvironment(inner)


class BegunEnvironment(Environment):
    """An environment that has been brought to a task's starting point."""

    def __init__(self, inner: Environment) -> None:
        self._inner = inner

    def reset(self, task: Task) -> Sequence[Message]:
        """Raises InputError where the environment answers the given turns otherwise than the starting point says, or ends before they do."""
        opening = list(self._inner.reset(replace(task, start=None)))
        for given in [m for m in task.start.messages if m.role == "assistant"] if task.start is not None else []:
            answer = self._inner.step(given.content)
            opening += [given, *answer.messages]
            if answer.done:
                raise InputError(
                    f"task {task.id!r} begins after turns with which its episode ends; expected a starting point from which there is something left to do"
                )
        given = list(task.start.messages) if task.start is not None else []
        if given and opening[-len(given) :] != given:
            raise InputError(
                f"the environment of task {task.id!r} answered otherwise to the turns that it begins after; expected answers that depend on the task and the turns alone"
            )
        return opening

    def step(self, text: str) -> EnvironmentStep:
        return self._inner.step(text)

    def close(self) -> None:
        self._inner.close()

    def snapshot(self) -> Any:
        return self._inner.snapshot()

    def restore(self, state: Any) -> None:
        self._inner.restore(state)


@dataclass(frozen=True)
class Played:
    """Turns that were played to a fresh environment: whole conversation, rewards added up, how many turns it took, and whether the episode ended with the last of them."""

    messages: tuple[Message, ...]
    reward: float
    turns: int
    done: bool


def play(tasks: TaskSet, task: Task, turns: Sequence[str]) -> Played:
    """Play turns to a fresh environment, until the episode ends. Raises InputError for tasks of single turns."""
    environment = tasks.environment()
    if environment is None:
        raise InputError(f"{tasks.name} has tasks of single turns; expected tasks that are played in turns")
    reward, taken, done = 0.0, 0, False
    try:
        messages = list(environment.reset(task))
        for turn in turns:
            answer = environment.step(turn)
            messages += [Message("assistant", turn), *answer.messages]
            reward, taken, done = reward + answer.reward, taken + 1, answer.done
            if done:
                break
    finally:
        environment.close()
    return Played(tuple(messages), reward, taken, done)


def begun_after(tasks: TaskSet, task: Task, turns: Sequence[str], author: str) -> Task | None:
    """The task, begun after some turns, with what its environment answers to them; None where the episode ends with them. Raises InputError for single turns."""
    played = play(tasks, task, turns)
    start = next((i for i, m in enumerate(played.messages) if m.role == "assistant"), len(played.messages))
    return None if played.done else replace(task, start=StartingPoint(played.messages[start:], author))
