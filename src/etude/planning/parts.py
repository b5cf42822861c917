"""What a simulated run is made of: costs, a schedule, attempts and their groups, and the accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["synchronous", "asynchronous", "partial"]


@dataclass(frozen=True)
class Costs:
    """Seconds. A decode step costs `decode_step` and `decode_token` for each sequence that runs; reading a prompt or a resumed sequence `prefill_token` a
    token, and each pass that reads something `reading` besides, and `decode_token` for each first token that comes out of it.

    environment: of each turn that an attempt has ended. An update costs `update` and `train_token` for each token of the batch, prompts once a group; `sync` is how
    long samplers stand still for new weights after it. All of the pool as it is: with more ranks `train_token` is smaller.
    """

    decode_step: float
    decode_token: float = 0.0
    prefill_token: float = 0.0
    environment: float = 0.0
    update: float = 0.0
    train_token: float = 0.0
    sync: float = 0.0
    reading: float = 0.0

    def step(self, running: int) -> float:
        """Seconds of one decode step of a sampler in which so many sequences run."""
        return self.decode_step + self.decode_token * running


@dataclass(frozen=True)
class Schedule:
    """Who waits for whom.

    synchronous: an update begins when all groups of its batch are complete, and the next batch after it. partial: `over_provision` times as many groups are in flight,
    an update begins when a batch of them is complete, and what is unfinished goes on under the new weights. asynchronous: samplers never wait for an update; so many
    groups are begun that none has to be trained on more than `max_staleness` updates late, and an update waits for groups that would otherwise be.
    max_staleness of partial: a group that old is waited for (0: no limit).
    """

    mode: Mode = "synchronous"
    batch: int = 16
    over_provision: float = 1.0
    max_staleness: int = 0
    samplers: int = 1
    slots: int = 256
    turns: int = 1
    prompt: int = 0
    environment_inside: bool = False
    """The environment's answer holds up the whole sampler, as in the embedded engine; otherwise others go on decoding beside it."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt at a task. left: tokens of the turn that is being written, and of those after it. drawn: (version of the weights, tokens) in order."""

    group: Group
    left: list[int]
    drawn: list[tuple[int, int]] = field(default_factory=list)
    fresh: bool = True
    """Its context is not in a sampler's cache: it has not begun, or was stopped."""
    away: bool = False
    """The environment works on its answer."""
    entered: int = 0
    """Its sampler's clock when the tokens before the ones not yet in `drawn` had been counted."""

    @property
    def written(self) -> int:
        return sum(tokens for _, tokens in self.drawn)


@dataclass(slots=True, eq=False)
class Group:
    """The attempts at one task. number: its place in the order in which groups were asked for."""

    number: int
    attempts: list[Attempt] = field(default_factory=list)
    ended: int = 0

    @property
    def complete(self) -> bool:
        return self.ended == len(self.attempts)

    @property
    def oldest(self) -> int | None:
        """The version of its oldest token; None when it has none yet."""
        return min((a.drawn[0][0] for a in self.attempts if a.drawn), default=None)


@dataclass
class Batch:
    """What one update was made of. seconds: when it ended. lags: updates between the weights that drew a token and those that were updated -> tokens."""

    seconds: float
    tokens: int
    lags: dict[int, int]


@dataclass
class Counts:
    """Everything that was spent until a moment, over all samplers where it is theirs. Differences of two are what an interval cost."""

    seconds: float = 0.0
    steps: int = 0
    slot_steps: int = 0
    busy_slot_steps: int = 0
    prefilled: int = 0
    generated: int = 0
    decoding: float = 0.0
    prefilling: float = 0.0
    environment: float = 0.0
    learning: float = 0.0
    syncing: float = 0.0
    busy_slot_seconds: float = 0.0

    def since(self, before: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) - getattr(before, name) for name in vars(self)})
