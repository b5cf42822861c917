"""Worlds that agents change themselves in: what an agent is, how one makes another out of itself, how one is tried on a task, and how good one really is.

`simulated` needs no model: an agent is two hidden numbers. A world of your own is a subclass of `World`, named as `file.py:Class`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from etude.errors import InputError, nearest
from etude.ledger import Ledger
from etude.search.archive import Agent, Failure, History, Trial
from etude.types import Metrics


class World(ABC):
    """What an archive of agents lives in. Agents are plain JSON values; all randomness comes from the generators that are handed in.

    With several workers `mutate` and `evaluate` are called from several threads at once. Model calls, tokens and seconds count where they are made, in `ledger`.
    """

    tasks: Sequence[str] = ()
    """Names of the tasks that agents are tried on."""
    ledger: Ledger | None = None
    """The run's accounts, set before anything is asked."""
    workers: int = 1
    """Jobs that may run side by side, set before anything is asked; for measuring."""

    @abstractmethod
    def root(self) -> Agent:
        """The agent that everything begins with."""

    @abstractmethod
    def mutate(self, agent: Agent, trials: History, random: Random) -> Agent | Failure | None:
        """What an agent makes of itself, given how it did so far; where that is no agent that works, None or a `Failure` that says why.

        trials: by task, and in `trials.failures` why earlier changes of this agent gave none.
        """

    @abstractmethod
    def evaluate(self, agent: Agent, task: str, random: Random) -> bool | Trial:
        """Whether an agent solves a task, or a `Trial` with a log besides."""

    def measure(self, agent: Agent) -> Metrics:
        """How good an agent is on what no search has seen: `eval/success`, a share, and whatever else there is to say. Empty where there is no such measure."""
        return {}

    def describe(self, agent: Agent) -> str:
        """An agent in a few words, for views of the tree."""
        return ""

    def change(self, agent: Agent, parent: Agent) -> str:
        """What distinguishes an agent from the one that it was made out of (a diff), for views of the tree."""
        return ""

    def close(self) -> None:
        """Let go of processes and files, when the search has ended."""


@dataclass
class Simulated(World):
    """Agents that are two hidden numbers: `success`, the probability of solving any task, and `fertility`, how much its children gain on average.

    A child's success is its parent's plus a mean (`fertile` times the fertility, or `sterile` times it below 0) and noise; its fertility is its parent's plus noise. With
    probability `brittle` a change is a shortcut: it solves `jump` more, and its fertility falls by 3, so that nothing comes of it. What does well now and what will do
    well later are then two things. heredity=False is the control: a child's success is Beta(2, 5), whatever its parent was.
    """

    success: float = 0.2
    fertility: float = 0.6
    fertile: float = 0.045
    sterile: float = 0.18
    noise: float = 0.03
    drift: float = 0.2
    brittle: float = 0.1
    jump: float = 0.3
    heredity: bool = True
    size: int = 60
    tasks: Sequence[str] = field(init=False)

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "success": "of the root",
        "fertility": "of the root",
        "noise": "of a child's success",
        "drift": "noise of its fertility",
        "brittle": "share of changes that are shortcuts",
        "jump": "what a shortcut gains",
        "heredity": "true or false",
        "size": "tasks",
    }

    def __post_init__(self) -> None:
        shares = {"success": self.success, "brittle": self.brittle}
        wrong = [f"{name}={value}" for name, value in shares.items() if not 0 <= value <= 1]
        wrong += [f"{name}={value}" for name, value in {"noise": self.noise, "drift": self.drift}.items() if value < 0]
        if wrong or self.size < 1:
            raise InputError(
                f"the simulated world has {', '.join(wrong) or f'size={self.size}'}; expected shares between 0 and 1, no negative noise and a task or more"
            )
        self.tasks = [f"task {i + 1}" for i in range(self.size)]

    def root(self) -> Agent:
        return {"success": self.success, "fertility": self.fertility, "shortcut": False}

    def mutate(self, agent: Agent, trials: History, random: Random) -> Agent:
        if not self.heredity:
            return {"success": _within(random.betavariate(2, 5), 0.01, 0.95), "fertility": 0.0, "shortcut": False}
        fertility = agent["fertility"]
        success = agent["success"] + (self.fertile if fertility > 0 else self.sterile) * fertility + random.gauss(0, self.noise)
        fertility += random.gauss(0, self.drift)
        shortcut = random.random() < self.brittle
        if shortcut:
            success, fertility = success + self.jump, fertility - 3
        return {"success": _within(success, 0.01, 0.95), "fertility": _within(fertility, -3.0, 3.0), "shortcut": shortcut}

    def evaluate(self, agent: Agent, task: str, random: Random) -> bool:
        return random.random() < agent["success"]

    def measure(self, agent: Agent) -> Metrics:
        return {"eval/success": agent["success"]}

    def describe(self, agent: Agent) -> str:
        return f"solves {agent['success']:.0%}, fertility {agent['fertility']:+.2f}" + (", a shortcut" if agent["shortcut"] else "")


def _within(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def open_world(spec: str | World, seed: int = 0) -> World:
    """The world that a specification names: `simulated`, `simulated:option=value,option=value`, or `file.py:Class`, whose constructor is given the seed if it takes one.

    From Python a world itself will do. Raises InputError for anything else.
    """
    from etude.tasks.options import settings_in

    if isinstance(spec, World):
        return spec
    if not isinstance(spec, str):
        raise InputError(f"tasks is a {type(spec).__name__}; expected the name of a world, as simulated, or a World")
    name, _, settings = spec.partition(":")
    if ".py:" in spec:
        return _own(spec, seed)
    if name != "simulated":
        raise InputError(
            f"there is no world {spec!r}.{nearest(name, ['simulated'])} Expected simulated, simulated:heredity=false, or file.py:Class for one of your own"
        )
    given: dict[str, Any] = settings_in(settings, f"--tasks {spec}", Simulated.OPTIONS, example="simulated:brittle=0.2")
    try:
        return Simulated(**given)
    except TypeError as error:
        raise InputError(f"--tasks {spec} can't be made: {error}; expected numbers, for example brittle=0.2") from error


def _own(spec: str, seed: int) -> World:
    from etude.tasks.user_code import describe, load_object, where

    thing = load_object(spec, "--tasks")
    if not (inspect.isclass(thing) and issubclass(thing, World)):
        raise InputError(f"--tasks {spec} is no world; expected a subclass of etude.search.worlds.World")
    try:
        return thing(**({"seed": seed} if "seed" in inspect.signature(thing).parameters else {}))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--tasks {spec} could not be constructed: {describe(error)} ({where(error, inspect.getfile(thing))})") from error
