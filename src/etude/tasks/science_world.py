"""Experiments in ScienceWorld as tasks (extra `scienceworld`, which needs Java): a house full of things, an aim, and commands; the score is the reward."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, ClassVar

from etude.errors import InputError, MissingExtra, nearest
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.tasks.options import settings_in
from etude.types import Message, Task

INSTRUCTION = "Act in this world by text. Each of your turns is one command, on its last line, such as: open door to kitchen. Nothing else is read."
OPTIONS = {
    "simple": "simplifications that the world knows, joined by +, such as easy",
    "turns": "turns of an episode at most",
    "held_out": "tasks to evaluate on",
}


class ScienceWorld(TaskSet):
    """Tasks of ScienceWorld (Wang et al., 2022), each in its variations: the world's own split says which of them are trained and which (its dev split) held out.

    The reward of a turn is the share of the full score of 100 that it gained; what ends an episode in failure takes all back. `correct` is the full score.
    """

    max_new_tokens = 64

    def __init__(self, names: Sequence[str] = (), *, simple: str = "easy", turns: int = 30, held_out: int = 60) -> None:
        """names: tasks of the world (none: all). Raises MissingExtra without the package, InputError without Java, for unknown names, and for numbers under 1."""
        if importlib.util.find_spec("scienceworld") is None:
            raise MissingExtra("scienceworld", "scienceworld", "acting in ScienceWorld")
        if shutil.which("java") is None:
            raise InputError("scienceworld runs in Java, and there is no java on the path; install a Java runtime (8 or newer)")
        if turns < 1 or held_out < 1:
            raise InputError(f"scienceworld: turns is {turns} and held_out {held_out}; expected at least 1")
        self.name = "scienceworld"
        self.max_turns = turns
        self.simple = ",".join(filter(None, simple.split("+")))
        with Laboratory() as world:
            known = list(world.get_task_names())
            for name in names:
                if name not in known:
                    raise InputError(f"scienceworld has no task {name!r}.{nearest(name, known)} It has: {', '.join(known)}")
            splits = {name: self._splits(world, name) for name in names or known}
        self._train = [(name, variation) for name, (train, _) in splits.items() for variation in train]
        held = [[(name, variation) for variation in dev] for name, (_, dev) in splits.items()]
        longest = max(map(len, held))
        # One variation of each task after the other, so that a few held-out tasks are of many kinds.
        self._held_out = [row[i] for i in range(longest) for row in held if i < len(row)][:held_out]
        self._tasks: dict[tuple[str, int], Task] = {}

    @classmethod
    def parse(cls, spec: str) -> ScienceWorld:
        """From `NAME,NAME:option=value,option=value`, both parts optional."""
        names, _, options = spec.partition(":")
        settings = settings_in(options, f"--tasks scienceworld:{spec}", OPTIONS, example="find-plant:turns=20")
        try:
            return cls([name.strip() for name in names.split(",") if name.strip()], **settings)
        except (TypeError, AttributeError) as error:
            raise InputError(f"--tasks scienceworld:{spec} can't be made: {error}; expected numbers for turns and held_out, and names for simple") from error

    def train_task(self, seed: int, index: int) -> Task:
        epoch, place = divmod(index, len(self._train))
        order = list(range(len(self._train)))
        Random(f"scienceworld/{seed}/{epoch}").shuffle(order)
        return self._task(self._train[order[place]])

    def held_out(self) -> Sequence[Task]:
        return [self._task(which) for which in self._held_out]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        """An experiment is done by acting, never by a text."""
        return {"correct": 0.0}

    def environment(self) -> Environment:
        return Experiment(self.simple)

    def conversation(self, task: Task, seed: int) -> Sequence[Message]:
        """The episode of the world's own solution."""
        with Laboratory() as world:
            world.load(task.info["task"], task.info["variation"], self.simple, generateGoldPath=True)
            world.reset()
            said = list(task.messages)
            for command in world.get_gold_action_sequence():
                observed, _, done, _ = world.step(command)
                said.append(Message("assistant", command))
                if done:
                    break
                said.append(Message("user", str(observed).strip()))
        return said if said[-1].role == "assistant" else said[:-1]

    def _splits(self, world: Any, name: str) -> tuple[list[int], list[int]]:
        world.load(name, 0, self.simple)
        return list(world.get_variations_train()), list(world.get_variations_dev())

    def _task(self, which: tuple[str, int]) -> Task:
        """A task, whose prompt is what the world says of it and what is seen first."""
        if which not in self._tasks:
            name, variation = which
            with Laboratory() as world:
                world.load(name, variation, self.simple)
                seen, info = world.reset()
            asked = f"{INSTRUCTION}\n\n{str(info['taskDesc']).strip()}\n\n{str(seen).strip()}"
            self._tasks[which] = Task(f"scienceworld/{name}/{variation}", (Message("user", asked),), info={"task": name, "variation": variation})
        return self._tasks[which]


class Experiment(Environment):
    """One episode. It can't be set back; a search plays its turns again."""

    def __init__(self, simple: str) -> None:
        self._simple = simple
        self._laboratory: Laboratory | None = None
        self._score = 0.0

    def reset(self, task: Task) -> Sequence[Message]:
        self.close()
        self._laboratory = Laboratory()
        self._laboratory.world.load(task.info["task"], task.info["variation"], self._simple)
        _, info = self._laboratory.world.reset()
        self._score = _share(info)
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        assert self._laboratory is not None, "an episode begins with reset"
        command = (text.strip().splitlines() or ["look around"])[-1].strip()
        seen, _, done, info = self._laboratory.world.step(command or "look around")
        before, self._score = self._score, _share(info)
        return EnvironmentStep((Message("user", str(seen).strip()),), self._score - before, bool(done), {"correct": float(self._score >= 1)})

    def close(self) -> None:
        if self._laboratory is not None:
            self._laboratory.close()
            self._laboratory = None


class Laboratory:
    """A running world on loan: each is a process of Java that takes a second or two to start, so that those that are done with are kept for the next episode."""

    _free: ClassVar[list[Any]] = []
    no_limit: ClassVar[int] = 1_000_000
    """Steps after which the world itself would end an episode; the episode's limit is the task set's."""

    def __init__(self) -> None:
        self.world: Any = self._free.pop() if self._free else importlib.import_module("scienceworld").ScienceWorldEnv("", envStepLimit=self.no_limit)

    def __enter__(self) -> Any:
        return self.world

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the world back."""
        self._free.append(self.world)


def _share(info: Mapping[str, Any]) -> float:
    """The score so far, as a share of the full one; a failed experiment has none."""
    return max(0.0, float(info["score"]) / 100)
