"""The interface between methods and whatever generates tokens. Back ends: `engine` (transformers, embedded), others behind the same calls.

The shape follows what continuous-batching servers offer (add, step, abort, prefix reuse), so that one of those can stand in for the embedded engine.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from etude.types import Alternatives, Completion

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw tokens. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 switch truncation off.

    `alternatives` asks for that many most likely tokens at each position. `ignore_eos` goes on past end tokens up to the limit (for benchmarks).
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    alternatives: int = 0
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        from etude.errors import InputError

        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; expected at least 1")
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; expected 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; expected a number in (0, 1]")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; expected 0 (off) or more")
        if any(not s for s in self.stop):
            raise InputError("a stop string is empty; expected at least one character each")

    @property
    def plain(self) -> bool:
        """True when no truncation, greedy choice, stop string or alternatives slow the common path."""
        return self.top_k == 0 and self.top_p == 1.0 and self.temperature > 0 and not self.stop and self.alternatives == 0


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to generate.

    `stream` names its random numbers (64 bits, see `stream_key`): the same stream, prompt and weights give the same tokens, whatever else is in the batch.
    `prefix` is an earlier partial completion of the same prompt to go on from: its tokens, log-probs and versions are kept, and draws go on where they stopped.
    `keep` holds the sequence's state after it finishes so that it can be forked or extended; release it with `Sampler.release`.
    """

    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    stream: int = 0
    prefix: Completion | None = None
    keep: bool = False


def resumed(request: Request, partial: Completion) -> Request:
    """The request that goes on where an aborted one stopped."""
    return replace(request, prefix=partial)


def stream_key(*parts: int | str) -> int:
    """A 63-bit key for a sequence's random stream from whatever identifies it (run seed, step, task id, sample number)."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


@dataclass(slots=True)
class DecodeClock:
    """A clock that counts work instead of time, so that claims about scheduling are exact.

    One step advances every running sequence by one token. `slot_steps` is the number of slots that existed over all steps, `busy_slot_steps` those that held a
    running sequence: their ratio is utilisation.
    """

    steps: int = 0
    slot_steps: int = 0
    busy_slot_steps: int = 0
    prefill_tokens: int = 0
    generated_tokens: int = 0

    @property
    def utilisation(self) -> float:
        return self.busy_slot_steps / self.slot_steps if self.slot_steps else 0.0

    def since(self, earlier: DecodeClock) -> DecodeClock:
        """The work between an earlier copy of this clock and now."""
        return DecodeClock(
            self.steps - earlier.steps,
            self.slot_steps - earlier.slot_steps,
            self.busy_slot_steps - earlier.busy_slot_steps,
            self.prefill_tokens - earlier.prefill_tokens,
            self.generated_tokens - earlier.generated_tokens,
        )

    def copy(self) -> DecodeClock:
        return replace(self)


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One token was drawn for a running request."""

    request: int
    token: int
    logprob: float
    entropy: float
    alternatives: Alternatives | None = None
    """What else could have been drawn, where the request asked for it."""


@dataclass(frozen=True, slots=True)
class FinishedEvent:
    """A request is complete."""

    request: int
    completion: Completion


Event = TokenEvent | FinishedEvent


def default_slots(bytes_per_token: int, context_length: int) -> int:
    """Slots where none are asked for: as many as fit 2 GiB of keys and values at the full context, or at 512 tokens of a longer one, between 16 and 512."""
    return int(min(512, max(16, 2**31 // max(1, bytes_per_token * min(context_length, 512)))))


class Sampler(ABC):
    """Generates completions for requests, batched continuously."""

    clock: DecodeClock
    version: int
    """Version of the weights in use; written on every token. `update` sets it."""
    context_length: int
    """Tokens that a prompt and what is generated after it may have together."""
    eos_ids: frozenset[int]
    """Tokens that end a turn."""
    slots: int
    """Sequences that run at once."""
    shares_weights: ClassVar[bool]
    """Whether it computes with the learner's own weights; else it has copies, which `update` renews."""

    @abstractmethod
    def add(self, request: Request) -> int:
        """Queue a request; returns its id."""

    @abstractmethod
    def step(self, token_events: bool = False) -> list[Event]:
        """Admit waiting requests, advance every running one by one token, and say what finished (and, if asked, every token drawn)."""

    @abstractmethod
    def fork(
        self,
        request: int,
        at: int | None = None,
        *,
        take: int | None = None,
        append: Sequence[int] = (),
        stream: int,
        params: SamplingParams | None = None,
        keep: bool = False,
    ) -> int:
        """Start a new request from the first `at` generated tokens (default: all) of a running or kept one.

        What the back end still holds of their keys and values is used again; the embedded engine holds all of a running or kept request, others may have let go.
        `append` adds given tokens (a tool's answer, the next user turn) behind them before generation goes on: the new request's prompt is then everything up to
        there. Without `append`, the first `at` tokens are the new completion's own, with their log-probs.
        `take` makes one of the alternatives recorded at position `at` the next token, with its log-prob and the position's entropy, as if it had been drawn: the
        other way at a fork. It counts as generated. Returns the new id.
        """

    @abstractmethod
    def abort(self, request: int) -> Completion:
        """Stop a waiting or running request; what it has so far comes back with stop reason 'aborted', and can be resumed as a request's `prefix`."""

    def abort_all(self, requests: Sequence[int]) -> list[Completion]:
        """Stop several requests, which a back end may do at less cost than one after the other."""
        return [self.abort(request) for request in requests]

    @abstractmethod
    def release(self, request: int) -> None:
        """Let go of a kept request's state."""

    def update(self, version: int, weights: Iterable[tuple[str, Tensor]] = ()) -> None:
        """Sample with new weights from now on; requests in flight go on under them, with the keys and values they have.

        weights: the model's named tensors, for a back end with memory of its own. One that shares the learner's only notes the version.
        """
        self.version = version

    @property
    def newest(self) -> int:
        """Version of the newest weights that it was given. They may wait until what is being sampled has ended; then `version` is behind."""
        return self.version

    @property
    @abstractmethod
    def pending(self) -> int:
        """Requests that are waiting or running."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """All completions, in the order of the requests."""
        ids = [self.add(r) for r in requests]
        place = {id_: i for i, id_ in enumerate(ids)}
        done: list[Completion | None] = [None] * len(ids)
        left = len(ids)
        while left:
            for event in self.step():
                if isinstance(event, FinishedEvent) and event.request in place:
                    done[place[event.request]] = event.completion
                    left -= 1
        return [c for c in done if c is not None]

    def stream(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Completions as they finish. More requests may be added meanwhile; their completions are yielded too, until nothing is pending."""
        for request in requests:
            self.add(request)
        while self.pending:
            for event in self.step():
                if isinstance(event, FinishedEvent):
                    yield event.completion

    @abstractmethod
    def score(self, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each token of option i after context i (temperature 1)."""
