"""What is practised: the interfaces that built-in, file and user task sets share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.errors import InputError
from etude.types import Message, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Annotation:
    """What somebody who knows says of an answer: feedback that ends in a verdict, and the answer as it should be, which is the same where it is good already."""

    feedback: str
    refined: str


class TaskSet(ABC):
    """Seeded training tasks, a fixed held-out split and a verifier.

    Training tasks are addressed by number, so that a curriculum's whole state is a cursor and a resumed run sees the tasks it would have seen.
    """

    name: str

    @abstractmethod
    def train_task(self, seed: int, index: int) -> Task:
        """Training task number `index` of the stream that `seed` names. Finite sets go round, reshuffled each epoch."""

    @abstractmethod
    def held_out(self) -> Sequence[Task]:
        """The fixed evaluation split. Disjoint from every training stream."""

    @abstractmethod
    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        """Named components of the judgement of one final text. `correct` in [0, 1] is among them; `format` in [0, 1] where a form is asked for.

        Every component is recorded, but only those in `reward_weights` add to the reward.
        """

    reward_weights: Mapping[str, float] = {"correct": 1.0}
    """Weight of each component in the reward."""

    environment_weights: Mapping[str, float] = {"environment": 1.0}
    """The same for episodes in an environment; the component `environment` is the sum of the steps' rewards."""

    max_new_tokens: int = 64
    """Tokens a turn needs at most, when the user does not say."""

    fixed_length: int = 0
    """Tokens that every answer has, where all have as many: one that has them is whole, and not cut off. 0 where lengths differ."""

    stop: tuple[str, ...] = ()
    """Strings that end a turn besides the model's own end token."""

    max_turns: int = 1
    """Turns an episode takes at most; more than 1 only with an environment."""

    def prepare(self, trajectories: Sequence[Trajectory]) -> None:
        """Hear of attempts that will be judged next, one by one: for sets that can work on many at once. Nothing by default."""

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        """Components of the judgement of a whole trajectory: by default those of its last turn.

        In an environment `correct` is the environment's to say, so it is left out there.
        """
        components = dict(self.verify(trajectory.task, trajectory.last_text))
        if "environment_reward" in trajectory.tags:
            components.pop("correct", None)
        return components

    def answer_in(self, text: str) -> str | None:
        """The final answer that a text gives, for majority votes; None where it gives none."""
        from etude.tasks.answers import final_answer

        return final_answer(text)

    def demonstration(self, task: Task, seed: int) -> str | None:
        """A worked answer to imitate (supervised fine-tuning), or None where the set has none."""
        return None

    def conversation(self, task: Task, seed: int) -> Sequence[Message] | None:
        """A whole episode to imitate, from the task's messages to the last assistant turn; None where the set has none."""
        return None

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        """The number, from 0, of the first wrong one of a solution's steps, -1 where none is wrong; None where the set cannot tell."""
        return None

    def feedback(self, task: Task, text: str) -> str:
        """What may be shown of an attempt before the next one, without giving the answer away: by how much it misses, an error message. Empty where there is nothing."""
        return ""

    def annotate(self, task: Task, text: str) -> Annotation | None:
        """Feedback on an answer, and the answer as it should be, from the set's own annotator; None where it has none. The verdict is `etude.tasks.feedback`'s to read."""
        return None

    def environment(self) -> Environment | None:
        """A fresh single-use environment for one multi-turn episode, or None for single-turn tasks."""
        return None


def prompt_key(task: Task) -> str:
    """A hash of what is asked, white space aside: equal prompts have equal keys, and the order of keys is a fixed shuffle."""
    asked = "\x1e".join(f"{m.role}\x1f{' '.join(m.content.split())}" for m in task.messages)
    return hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class EnvironmentStep:
    """What an environment answers to one action. `reward` is the step's own; the episode's reward is the sum of its steps'."""

    messages: tuple[Message, ...] = ()
    reward: float = 0.0
    done: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


def total(components: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted sum of components; those without a weight, or with weight 0, do not count. NaN when one that counts is NaN."""
    missing = [name for name, weight in weights.items() if weight and name not in components]
    if missing:
        given = ", ".join(components) or "none"
        raise InputError(f"the reward needs the component {missing[0]!r}, but the verifier gave {given}; return it, or give it no weight")
    return sum((weight * components[name] for name, weight in weights.items() if weight), 0.0)


RIGHT = 0.5
"""A verdict from here on counts as a right answer, where right and wrong ones are counted."""
STEPS_TAKEN = "steps"
"""Entry of a step's info: how many environment steps an action was that does several things at once; 1 where it is not there."""
TOOL_COUNTS = frozenset({"tool_calls", "tool_errors"})
"""Entries of a step's info that are added up over an episode: calls of a tool in this step, and those of them that the tool itself says failed."""
EPISODE_TAGS = "episode_tags"
"""Entry of a step's info: a mapping of plain values that describe the episode so far. The last ones become tags of the trajectory."""


class Environment(ABC):
    """A multi-turn episode. Cheap, single use: one instance, one `reset`, then `step` until done.

    An environment with a tool reports what was called, and what failed, in `EnvironmentStep.info` under TOOL_COUNTS; whatever else is worth keeping of an episode
    under EPISODE_TAGS.
    `EnvironmentStep.info["correct"]` of the last step, when present, is the verifier's verdict in [0, 1]; otherwise the episode's reward is taken.
    """

    @abstractmethod
    def reset(self, task: Task) -> Sequence[Message]:
        """Messages that open the episode (usually `task.messages`)."""

    def begin(self, text: str) -> None:
        """Hear what `step` will be asked next: for one that can work on it while others do. Nothing by default."""

    @abstractmethod
    def step(self, text: str) -> EnvironmentStep:
        """The answer to what the policy wrote in its turn."""

    def close(self) -> None:
        """Release what the episode held."""

    def product(self) -> str | None:
        """What the episode has made so far, as text: a patch, a program; empty where it has made nothing yet, None where episodes make nothing that could be shown.

        Whoever compares attempts sees it, so that nothing of what decides in the end may be in it.
        """
        return None

    def snapshot(self) -> Any:
        """State to return to with `restore`; needed by search methods only."""
        raise TypeError(f"{type(self).__name__} cannot be used for search: it does not implement snapshot() and restore()")

    def restore(self, state: Any) -> None:
        """Return to a state taken with `snapshot`."""
        raise TypeError(f"{type(self).__name__} cannot be used for search: it does not implement snapshot() and restore()")
