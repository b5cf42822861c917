"""The book-keeping of a sampler, whatever computes its logits: sequences that wait, run and are kept, and what is known of each of their tokens.

A back end says how sequences get logits (`step`), and what `abort_all` and `update` mean for whatever it holds of them. Requests, forks, stop rules, texts and events
are the same for all of them, and so are the tokens: both back ends draw with `drawing.draw_tokens`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from etude.errors import InputError
from etude.models.drawing import Drawn
from etude.models.sampling import DecodeClock, Event, FinishedEvent, Request, Sampler, SamplingParams, TokenEvent
from etude.types import Alternatives, Completion, StopReason


class Decodes(Protocol):
    """What a sampler needs of a tokenizer."""

    def decode(self, token_ids: Any, /, skip_special_tokens: bool = ...) -> Any: ...


@dataclass(slots=True, eq=False)
class SequenceState:
    """One sequence in flight, or kept. `tokens` is prompt and generated ones; the lists have one entry for each generated one."""

    id: int
    params: SamplingParams
    stream: int
    prompt_length: int
    tokens: list[int]
    keep: bool
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    finished: StopReason | None = None

    @property
    def drawn(self) -> int:
        """Generated tokens, which is also the number of the next draw in its random stream."""
        return len(self.tokens) - self.prompt_length

    def adopt(self, source: Completion | SequenceState, count: int) -> None:
        """Take over the first `count` generated tokens of another sequence with all that is known of them."""
        generated = source.tokens if isinstance(source, Completion) else source.tokens[source.prompt_length :]
        self.tokens += generated[:count]
        self.logprobs = source.logprobs[:count]
        self.entropies = source.entropies[:count]
        self.versions = source.versions[:count]
        self.alternatives = source.alternatives[:count]


Held = TypeVar("Held", bound=SequenceState)


class SequenceSampler(Sampler, Generic[Held]):
    """A sampler that keeps account of its sequences in this process."""

    sequence_class: type[Held]
    """What it holds of a sequence; a back end may add fields."""

    def __init__(self, tokenizer: Decodes, *, eos_ids: Sequence[int], context_length: int, slots: int) -> None:
        self.tokenizer = tokenizer
        self.eos_ids = frozenset(eos_ids)
        self.context_length = context_length
        self.slots = slots
        self.version = 0
        self.clock = DecodeClock()
        self._waiting: deque[Held] = deque()
        self._running: list[Held] = []
        self._live: dict[int, Held] = {}
        self._kept: dict[int, Held] = {}
        self._next_id = 0

    # Requests

    def add(self, request: Request) -> int:
        self._check_length(len(request.prompt) + (len(request.prefix.tokens) if request.prefix else 0))
        sequence = self.sequence_class(self._take_id(), request.params, request.stream, len(request.prompt), list(request.prompt), request.keep)
        if request.prefix is not None:
            sequence.adopt(request.prefix, len(request.prefix.tokens))
        self._enqueue(sequence)
        return sequence.id

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
        source = self._live.get(request) or self._kept.get(request)
        if source is None:
            raise InputError(f"request {request} can't be forked: it is neither in flight nor kept; add it with keep=True to fork it after it finishes")
        at = source.drawn if at is None else at
        if not 0 <= at <= source.drawn:
            raise InputError(f"request {request} can't be forked at token {at}: it has {source.drawn} generated tokens")
        length = source.prompt_length + at
        if take is not None and append:
            raise InputError("a fork takes one token of its own or is given some, not both; expected `take` or `append`")
        self._check_length(length + len(append) + (take is not None))
        prompt = source.tokens[: source.prompt_length]
        sequence = self.sequence_class(self._take_id(), params or source.params, stream, len(prompt), prompt, keep)
        if append:
            sequence.tokens = [*source.tokens[:length], *append]
            sequence.prompt_length = len(sequence.tokens)
        else:
            sequence.adopt(source, at)
        if take is not None:
            self._take(sequence, source, at, take)
        self._reuse(sequence, source, length)
        self._enqueue(sequence)
        return sequence.id

    def _reuse(self, sequence: Held, source: Held, length: int) -> None:
        """Give a fork what the back end holds of the first `length` tokens of its source; by default it finds that by itself."""

    def abort(self, request: int) -> Completion:
        return self.abort_all([request])[0]

    def abort_all(self, requests: Sequence[int]) -> list[Completion]:
        for request in requests:
            if request not in self._live:
                raise InputError(f"request {request} can't be aborted: it is not in flight")
        sequences = [self._live[request] for request in requests]
        self._withdraw(sequences)
        return [self._retire(sequence) for sequence in sequences]

    @abstractmethod
    def _withdraw(self, sequences: Sequence[Held]) -> None:
        """Take sequences out of waiting and running ones and mark them as aborted."""

    def release(self, request: int) -> None:
        self._kept.pop(request, None)

    @property
    def pending(self) -> int:
        return len(self._live)

    @property
    def in_flight(self) -> list[int]:
        """The requests that wait or run, in the order in which they came."""
        return list(self._live)

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _enqueue(self, sequence: Held) -> None:
        self._live[sequence.id] = sequence
        self._waiting.append(sequence)

    def _check_length(self, length: int) -> None:
        if length >= self.context_length:
            raise InputError(
                f"a prompt of {length} tokens leaves no room in the model's context of {self.context_length}; shorten it or use a model with a longer context"
            )
        if length == 0:
            raise InputError("a prompt is empty; expected at least one token")

    def _take(self, sequence: Held, source: Held, at: int, token: int) -> None:
        """Write one of the alternatives that the source had at position `at` as the sequence's next token."""
        options = source.alternatives[at] if at < len(source.alternatives) else Alternatives([], [])
        if token not in options.tokens:
            known = ", ".join(map(str, options.tokens)) or "none"
            raise InputError(
                f"request {source.id} can't be forked into token {token} at position {at}: its alternatives there are {known}; ask for more of them"
            )
        sequence.tokens.append(token)
        sequence.logprobs.append(options.logprobs[options.tokens.index(token)])
        sequence.entropies.append(source.entropies[at])
        sequence.versions.append(source.versions[at])
        sequence.alternatives.append(options)
        sequence.finished = self._stop_reason(sequence, token)
        self.clock.generated_tokens += 1

    # Tokens

    def _admit(self) -> list[Held]:
        """Take waiting sequences while slots are free. Those that have nothing left to draw are marked as finished."""
        entering: list[Held] = []
        while self._waiting and len(self._running) + len(entering) < self.slots:
            sequence = self._waiting.popleft()
            if self._room(sequence) <= 0 and sequence.finished is None:
                # A resumed prefix that already has all its tokens: nothing to draw.
                sequence.finished = "length"
            entering.append(sequence)
        return entering

    def _room(self, sequence: Held) -> int:
        """Tokens that it may still draw."""
        return min(sequence.params.max_new_tokens - sequence.drawn, self.context_length - len(sequence.tokens))

    def _record(self, sequences: Sequence[Held], drawn: Drawn, events: list[Event] | None, *, version: int | None = None) -> None:
        """Write a drawn token onto each sequence, and mark those that it ends. version: of the weights that drew, where they are not those of now."""
        self.clock.generated_tokens += len(sequences)
        for sequence, token, logprob, value, options in zip(
            sequences, drawn.tokens, drawn.logprobs, drawn.entropies, drawn.alternatives or [None] * len(sequences), strict=True
        ):
            sequence.tokens.append(token)
            sequence.logprobs.append(logprob)
            sequence.entropies.append(value)
            sequence.versions.append(self.version if version is None else version)
            if options is not None:
                sequence.alternatives.append(options)
            sequence.finished = self._stop_reason(sequence, token)
            if events is not None:
                events.append(TokenEvent(sequence.id, token, logprob, value, options))

    def _stop_reason(self, sequence: Held, token: int) -> StopReason | None:
        params = sequence.params
        if token in self.eos_ids and not params.ignore_eos:
            return "eos"
        if params.stop:
            # A stop string can only have been completed by the newest token, so a short tail is enough to look at.
            tail = max(len(s) for s in params.stop) + 8
            text = self.tokenizer.decode(sequence.tokens[max(sequence.prompt_length, len(sequence.tokens) - tail) :], skip_special_tokens=True)
            if any(s in text for s in params.stop):
                return "stop"
        return "length" if self._room(sequence) <= 0 else None

    # Leaving

    def _retire(self, sequence: Held) -> Completion:
        del self._live[sequence.id]
        if sequence.keep:
            self._kept[sequence.id] = sequence
        assert sequence.finished is not None
        generated = sequence.tokens[sequence.prompt_length :]
        return Completion(
            request=sequence.id,
            prompt=sequence.tokens[: sequence.prompt_length],
            tokens=generated,
            text=self._text(generated, sequence.params.stop if sequence.finished == "stop" else ()),
            logprobs=list(sequence.logprobs),
            entropies=list(sequence.entropies),
            versions=list(sequence.versions),
            stop_reason=sequence.finished,
            alternatives=list(sequence.alternatives),
        )

    def _finished(self, sequences: Sequence[Held]) -> list[Event]:
        return [FinishedEvent(s.id, self._retire(s)) for s in sequences]

    def _text(self, tokens: list[int], stop: tuple[str, ...]) -> str:
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        ends = [text.find(s) for s in stop if s in text]
        return text[: min(ends)] if ends else text
