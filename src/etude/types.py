"""The data that flows through the loop: tasks, completions, segments, trajectories, groups.

Nothing here imports torch. Token ids and per-token numbers are plain lists; tensors are built once, at the learner's door.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Author = Literal["policy", "environment", "tool", "injected"]
StopReason = Literal["eos", "stop", "length", "aborted", "environment"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """A partial history that an episode begins from, and who wrote it (a buffer, a reference policy, a person)."""

    messages: tuple[Message, ...]
    author: str


@dataclass(frozen=True, slots=True)
class Task:
    """Something to practise on.

    `answer` is the reference answer, or None where there is none. `info` carries whatever the verifier needs (plain JSON values).
    """

    id: str
    messages: tuple[Message, ...]
    answer: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    start: StartingPoint | None = None

    @property
    def opening(self) -> tuple[Message, ...]:
        """What an episode opens with: what is asked, and the partial history that it begins from."""
        return self.messages if self.start is None else (*self.messages, *self.start.messages)

    @property
    def prompt(self) -> str:
        """The last user message: what the task asks."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), self.messages[-1].content)


@dataclass(slots=True)
class Alternatives:
    """The K most likely tokens at one position, most likely first, with their log-probabilities under the sampling distribution."""

    tokens: list[int]
    logprobs: list[float]


@dataclass(slots=True)
class Completion:
    """What a sampler returns for one request; T generated tokens.

    `logprobs` and `entropies` (nats) are those of the distribution that was sampled from, after temperature and truncation;
    `versions[t]` is the policy version that wrote token t. `alternatives` is empty unless the request asked for it.
    The stop token, when one ended the sequence, is the last of `tokens` and not part of `text`.
    """

    request: int
    prompt: list[int]
    tokens: list[int]
    text: str
    logprobs: list[float]
    entropies: list[float]
    versions: list[int]
    stop_reason: StopReason
    alternatives: list[Alternatives] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """True when the policy ended it itself, by an end token or a stop string."""
        return self.stop_reason in ("eos", "stop")


@dataclass(slots=True)
class Segment:
    """A span of one trajectory written by one author; T tokens.

    Only segments with `trained=True` enter the loss, and those carry behaviour log-probs. `advantages` is filled by the credit step:
    one value per token. `reward` is the segment's own (turn-level credit); the trajectory's outcome lives on the trajectory.
    """

    tokens: list[int]
    author: Author
    text: str = ""
    trained: bool = False
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    reward: float = 0.0
    advantages: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)

    @classmethod
    def from_completion(cls, completion: Completion) -> Segment:
        """The trained segment that a policy's completion is."""
        return cls(
            tokens=completion.tokens,
            author="policy",
            text=completion.text,
            trained=True,
            logprobs=completion.logprobs,
            entropies=completion.entropies,
            versions=completion.versions,
            alternatives=completion.alternatives,
        )


@dataclass(slots=True)
class Trajectory:
    """One episode: a prompt, then segments.

    `rewards` holds the named components (`correct`, `format`, `length`, ...); `reward` is their total, NaN when it could not be judged.
    `prompt` is the context it was sampled under. `train_prompt`, when set, is the context it is trained under instead (hints removed).
    `parent` and `fork` place it in a tree: it shares its parent's first `fork` tokens after the prompt.
    """

    task: Task
    prompt: list[int]
    segments: list[Segment]
    stop_reason: StopReason
    sample: int = 0
    rewards: dict[str, float] = field(default_factory=dict)
    reward: float = math.nan
    tags: dict[str, Any] = field(default_factory=dict)
    parent: Trajectory | None = field(default=None, repr=False)
    fork: int = 0
    train_prompt: list[int] | None = None

    @property
    def text(self) -> str:
        """Everything the policy wrote, turns joined by newlines."""
        return "\n".join(s.text for s in self.segments if s.author == "policy")

    @property
    def last_text(self) -> str:
        """The policy's last turn: what a verifier of final answers reads."""
        return next((s.text for s in reversed(self.segments) if s.author == "policy"), "")

    @property
    def tokens(self) -> list[int]:
        """All tokens after the prompt."""
        return [t for s in self.segments for t in s.tokens]

    @property
    def trained_length(self) -> int:
        """Number of tokens that enter the loss."""
        return sum(len(s.tokens) for s in self.segments if s.trained)

    @property
    def generated_length(self) -> int:
        """Number of tokens that the policy wrote."""
        return sum(len(s.tokens) for s in self.segments if s.author == "policy")

    @property
    def correct(self) -> float:
        """The verifier's own verdict in [0, 1], before any shaping; the total reward where no such component exists."""
        return self.rewards.get("correct", self.reward)

    def set_advantage(self, value: float) -> None:
        """Give every trained token the same advantage."""
        for segment in self.segments:
            if segment.trained:
                segment.advantages = [value] * len(segment.tokens)


@dataclass(slots=True)
class Group:
    """Trajectories that are judged against each other: by default all of one task. Groups are ragged."""

    key: str
    trajectories: list[Trajectory]
    tags: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.trajectories)

    @property
    def rewards(self) -> list[float]:
        return [t.reward for t in self.trajectories]

    @property
    def has_spread(self) -> bool:
        """True when at least two scorable rewards differ: the group carries a learning signal."""
        scored = [r for r in self.rewards if not math.isnan(r)]
        return len(scored) > 1 and max(scored) - min(scored) > 1e-9


Metrics = dict[str, float]


def trajectories_of(groups: Iterable[Group]) -> list[Trajectory]:
    """All trajectories of some groups, in order."""
    return [t for g in groups for t in g.trajectories]


def mean(values: Sequence[float], default: float = math.nan) -> float:
    """Plain mean; `default` for an empty sequence."""
    return sum(values) / len(values) if values else default
