"""A model that acts in an environment, one action at a time, from any state that it was in: trees of actions.

A node is an action that was carried out and what came of it, with the environment's snapshot, so that every node can be gone on from. What the model wrote is asked for as
text from whoever answers conversations (`etude.models.responders`): a model that runs here, one behind an endpoint, a scripted one. Rewards and verdicts of an environment are
kept apart from the tree (`ActionTree.outcomes`): who chooses nodes, values them or picks among them never sees what hidden tests say.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

from etude.errors import InputError
from etude.models.replies import Reply
from etude.models.responders import Asked, Responder
from etude.models.sampling import SamplingParams
from etude.models.structured import ask_structured
from etude.search.actions import files_in, kind_of, spans_in, stated_action
from etude.search.tree import Node, Tree
from etude.tasks.base import RIGHT, STEPS_TAKEN, Environment, TaskSet
from etude.types import Message, Task


@dataclass
class Step:
    """One turn as an object: why, and the action alone."""

    thought: str
    action: str


@dataclass(frozen=True)
class Turn:
    """What an actor wrote. tokens: read and written, where the responder counts them."""

    text: str
    tokens: int = 0


@dataclass
class Actor:
    """Who acts: asks a responder for the next turn of conversations. structured: turns are asked for as JSON objects with a thought and an action, for models that keep to
    a form better than to a convention; an answer that is no such object is taken as it stands. guidance: what it is told before all else."""

    responder: Responder
    params: SamplingParams
    structured: bool = False
    guidance: str = ""

    def turns(self, asked: Sequence[Asked], key: Sequence[int | str]) -> list[Turn | None]:
        """A turn for each conversation; None for one that leaves no room for an answer."""
        if self.guidance:
            asked = [replace(each, messages=(Message("system", self.guidance), *each.messages)) for each in asked]
        fitting = [each for each in asked if self.responder.fits(each.messages, self.params.max_new_tokens)]
        if not fitting:
            return [None] * len(asked)
        if self.structured:
            read = ask_structured(self.responder, fitting, Step, self.params, key=key)
            texts = [found.replies[-1].text if found.value is None else _written(found.value, each.messages) for each, found in zip(fitting, read, strict=True)]
            spent = [sum(map(tokens_of, found.replies)) for found in read]
        else:
            replies = [row[0] for row in self.responder.replies(fitting, self.params, samples=1, key=key)]
            texts, spent = [reply.text for reply in replies], [tokens_of(reply) for reply in replies]
        made = {each.id: Turn(text, tokens) for each, text, tokens in zip(fitting, texts, spent, strict=True)}
        return [made.get(each.id) for each in asked]


def tokens_of(reply: Reply) -> int:
    """Tokens read and written, as far as they are known."""
    return round(sum(length for length in (reply.length, reply.prompt_length) if not math.isnan(length)))


@dataclass(frozen=True)
class Played:
    """What came of an action. state: what a node holds (see `ActionTree`). reward and correct are the environment's verdicts, for measuring only."""

    state: dict[str, Any]
    done: bool = False
    reward: float = 0.0
    correct: float | None = None


@dataclass
class ActionTree:
    """The tree of one task's episodes.

    A node's state holds `text` (the turn), `action` (without thoughts), `kind`, `messages` (what the environment answered), `snapshot`, `product` (what was made so far),
    `files` and `spans` that the actions up to here name, `failed`, `tests` ([passed, failed] of a run of visible tests, else None), `duplicate`, `hint`; and whatever its
    search adds, such as `value`. outcomes: node -> what the environment's own verdict was, for ends: for measuring, never for searching. The environment is reset, and
    stands anywhere.
    """

    task: Task
    environment: Environment
    random: Random
    opening: tuple[Message, ...]
    tree: Tree
    iterations: int = 0
    steps: int = 0
    """Environment steps."""
    tokens: int = 0
    ended: str = ""
    """Why nothing more is done here; empty while something is."""
    picked: int | None = None
    why: str = ""
    outcomes: dict[int, float] = field(default_factory=dict)
    rewards: dict[int, float] = field(default_factory=dict)
    """node -> sum of the rewards on the way to it, where there were any."""

    @classmethod
    def plant(cls, task_set: TaskSet, task: Task, random: Random) -> ActionTree:
        """A tree of one node. Raises InputError for tasks without an environment, and for environments whose states can't be kept."""
        environment = task_set.environment()
        if environment is None:
            raise InputError(f"tasks of {task_set.name} are answered in one turn; expected tasks with an environment, such as repair, crafting or repos:FOLDER")
        opening = tuple(environment.reset(task))
        try:
            snapshot = environment.snapshot()
            json.dumps(snapshot)
        except TypeError as error:
            raise InputError(
                f"the environment of {task_set.name} can't be gone back to: {error}; expected one with snapshot(), which gives plain JSON values, and restore(state)"
            ) from error
        return cls(task, environment, random, opening, Tree({"snapshot": snapshot, "product": environment.product()}))

    def conversation(self, number: int, note: str = "") -> tuple[Message, ...]:
        """What the actor reads at a node. note: words put behind the last message."""
        said = list(self.opening)
        for node in self.tree.path(number)[1:]:
            said += [Message("assistant", node.state["text"]), *(Message(**m) for m in node.state["messages"])]
        return (*said[:-1], replace(said[-1], content=f"{said[-1].content}\n\n{note}")) if note else tuple(said)

    def play(self, number: int, text: str) -> Played:
        """Carry out a turn at a node."""
        node = self.tree.nodes[number]
        self.environment.restore(copy.deepcopy(node.state["snapshot"]))
        answer = self.environment.step(text)
        self.steps += int(answer.info.get(STEPS_TAKEN, 1))
        state = {
            **stated(text),
            "messages": [asdict(message) for message in answer.messages],
            "snapshot": None if answer.done else self.environment.snapshot(),
            "product": self.environment.product(),
            "failed": bool(answer.info.get("tool_errors")),
            "tests": _tests(answer.info),
        }
        return Played(state, answer.done, answer.reward, answer.info.get("correct"))

    def add(self, number: int, played: Played, **more: Any) -> Node:
        """A child for what came of an action. more: further entries of its state."""
        above = self.tree.nodes[number].state
        seen = {name: list(dict.fromkeys([*above.get(name, ()), *played.state[name]])) for name in ("files", "spans")}
        made = self.tree.add(number, {**played.state, **seen, **more}, terminal=played.done)
        reward = self.rewards.get(number, 0.0) + played.reward
        if reward:
            self.rewards[made.number] = reward
        if played.done:
            self.outcomes[made.number] = float(reward >= RIGHT) if played.correct is None else float(played.correct)
        return made

    def twin(self, number: int, text: str) -> Node | None:
        """The child of a node that does the same as a turn, if there is one."""
        action = stated_action(text)
        return next((child for child in self.tree.children(number) if child.state["action"] == action), None)

    def add_duplicate(self, number: int, text: str, **more: Any) -> Node:
        """A child that does what another one did: nothing is carried out, and nothing comes after it."""
        state = {**stated(text), "messages": [], "snapshot": None, "product": None, "failed": False, "tests": None}
        return self.tree.add(number, {**state, "duplicate": True, **more})

    def handed_in(self, number: int, text: str) -> float:
        """What the verdict would be if a turn were taken at a node, which the search takes no notice of: 0 where the episode does not end with it."""
        before = self.steps
        played = self.play(number, text)
        self.steps = before
        if not played.done:
            return 0.0
        reward = self.rewards.get(number, 0.0) + played.reward
        return float(reward >= RIGHT) if played.correct is None else float(played.correct)

    def finished(self) -> list[Node]:
        """Ends of episodes."""
        return self.tree.ends()

    def leaves(self) -> list[Node]:
        """Nodes besides the root that nothing came after, and that are no duplicates."""
        return [node for node in self.tree.nodes[1:] if not node.children and not node.state["duplicate"]]

    def to_plain(self) -> dict[str, Any]:
        """As plain JSON values, from which `restore` goes on as if nothing had stopped."""
        version, state, gauss = self.random.getstate()
        kept = {name: getattr(self, name) for name in _KEPT}
        by_number = {name: [[number, value] for number, value in getattr(self, name).items()] for name in ("outcomes", "rewards")}
        return {"task": self.task.id, "tree": self.tree.to_plain(), "random": [version, list(state), gauss], **kept, **by_number}

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Go back to what `to_plain` gave of the same task. Raises InputError for a tree of another one."""
        if plain["task"] != self.task.id:
            raise InputError(f"the saved tree is one of task {plain['task']!r}, where {self.task.id!r} was expected; were the tasks changed since?")
        version, state, gauss = plain["random"]
        self.random.setstate((version, tuple(state), gauss))
        self.tree = Tree.from_plain(plain["tree"])
        for name in _KEPT:
            setattr(self, name, plain[name])
        self.outcomes, self.rewards = ({number: value for number, value in plain[name]} for name in ("outcomes", "rewards"))


_KEPT = ("iterations", "steps", "tokens", "ended", "picked", "why")


def stated(text: str) -> dict[str, Any]:
    """What a turn says it does, as entries of a state."""
    action = stated_action(text)
    return {"text": text, "action": action, "kind": kind_of(action), "files": files_in(action), "spans": spans_in(action), "duplicate": False}


def _written(step: Step, messages: Sequence[Message]) -> str:
    """A step as a turn: with its thought where the task's words mark actions, else the action alone."""
    marked = any("<action>" in message.content for message in messages)
    return f"{step.thought.strip()}\n<action>{step.action.strip()}</action>" if marked else step.action.strip()


def _tests(info: Mapping[str, Any]) -> list[int] | None:
    return [int(info["tests_passed"]), int(info["tests_failed"])] if "tests_passed" in info else None
