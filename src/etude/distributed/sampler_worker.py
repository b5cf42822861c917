"""The process that a sampler lives in: it holds an ordinary `Sampler` over a model of its own, and steps it as far as it is asked to."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from etude.config import SamplerBackEnd, VLLMConfig
from etude.distributed.weights import Packed, take_over, unpacked
from etude.models.sampling import DecodeClock, Request, TokenEvent
from etude.types import Alternatives, StopReason


@dataclass(frozen=True)
class Opening:
    """What a worker's model and sampler are made of. skeleton: the model without its values (`etude.models.skeletons`)."""

    skeleton: Any
    tokenizer: Any
    name: str
    device: str
    slots: int
    back_end: SamplerBackEnd
    vllm: VLLMConfig
    threads: int


@dataclass(frozen=True)
class Facts:
    """What a sampler is like that was opened."""

    pid: int
    slots: int
    context_length: int


@dataclass(frozen=True)
class Add:
    """Take a request, under the number that the driver has for it."""

    number: int
    request: Request


@dataclass(frozen=True)
class Fork:
    """Take a request that begins as another one does, with what is still held of that. request: the whole of it, for a worker that holds nothing."""

    number: int
    request: Request
    source: int
    at: int
    take: int | None
    append: Sequence[int]


@dataclass(frozen=True)
class Abort:
    """Let go of a request in flight."""

    number: int


@dataclass(frozen=True)
class Release:
    """Let go of what is kept of a request."""

    number: int


Command = Add | Fork | Abort | Release


@dataclass
class Step:
    """What one step of a worker's sampler did. One entry each for every token that was drawn; `ended` says which requests are over, and why.

    clock: the work of this step alone. version: of the weights that drew.
    """

    version: int
    clock: DecodeClock
    numbers: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    alternatives: list[Alternatives | None] = field(default_factory=list)
    ended: dict[int, StopReason] = field(default_factory=dict)


@dataclass
class _Held:
    """A request that the sampler holds: its number there, whether its state outlives it, whether it is over."""

    own: int
    keep: bool
    over: bool = False


class SamplerWorker:
    """Lives in an actor; see `RaySampler` for who asks."""

    def ready(self, opening: Opening, values: Packed, version: int, weights: Packed | None) -> Facts:
        """Make model and sampler. values: all tensors of the model; weights: newer ones of its parameters, where there are. Raises InputError."""
        from etude.models.language import LanguageModel
        from etude.models.skeletons import filled

        warnings.filterwarnings("ignore", module="torch")
        torch.set_num_threads(opening.threads)
        model = filled(opening.skeleton, dict(unpacked(values)), torch.device(opening.device))
        self.policy = LanguageModel.wrap(model, opening.tokenizer, name=opening.name, slots=opening.slots, sampler=opening.back_end, vllm=opening.vllm)
        self.sampler = self.policy.sampler
        self._held: dict[int, _Held] = {}
        """What the sampler still holds, by the driver's number."""
        self._numbers: dict[int, int] = {}
        """The sampler's own number of a request in flight -> the driver's."""
        self.renew(version, weights)
        return Facts(os.getpid(), self.sampler.slots, self.sampler.context_length)

    def renew(self, version: int, weights: Packed | None) -> None:
        """Go on with other weights."""
        if weights is not None:
            take_over(self.policy.model, weights)
        self.policy.weights_changed(version)

    def advance(self, commands: Sequence[Command], steps: int) -> list[Step]:
        """Do what was asked, in order, and then as many steps of the sampler, or fewer where nothing is left to do."""
        for command in commands:
            self._obey(command)
        done: list[Step] = []
        while self.sampler.pending and len(done) < steps:
            done.append(self._step())
        return done

    def score(self, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> list[list[float]]:
        """As `Sampler.score`."""
        return self.sampler.score(contexts, options)

    def _obey(self, command: Command) -> None:
        held = self._held.get(command.number)
        if isinstance(command, Add):
            self._take(command, self.sampler.add(command.request))
        elif isinstance(command, Fork):
            source, request = self._held.get(command.source), command.request
            if source is None:
                self._take(command, self.sampler.add(request))
            else:
                how: dict[str, Any] = {"take": command.take, "append": command.append, "stream": request.stream, "params": request.params, "keep": request.keep}
                self._take(command, self.sampler.fork(source.own, command.at, **how))
        elif held is None:
            # It ended in a step that nobody has looked at yet.
            return
        elif isinstance(command, Abort) and not held.over:
            self.sampler.abort(held.own)
            self._end(command.number)
        elif isinstance(command, Release):
            self.sampler.release(held.own)
            held.keep = False
            if held.over:
                del self._held[command.number]

    def _take(self, command: Add | Fork, own: int) -> None:
        self._held[command.number] = _Held(own, command.request.keep)
        self._numbers[own] = command.number

    def _end(self, number: int) -> None:
        """A request is over. What is kept of it can be forked until it is released."""
        held = self._held[number]
        held.over = True
        del self._numbers[held.own]
        if not held.keep:
            del self._held[number]

    def _step(self) -> Step:
        before = self.sampler.clock.copy()
        events = self.sampler.step(token_events=True)
        step = Step(self.sampler.version, self.sampler.clock.since(before))
        for event in events:
            number = self._numbers[event.request]
            if isinstance(event, TokenEvent):
                step.numbers.append(number)
                step.tokens.append(event.token)
                step.logprobs.append(event.logprob)
                step.entropies.append(event.entropy)
                step.alternatives.append(event.alternatives)
            else:
                step.ended[number] = event.completion.stop_reason
                self._end(number)
        return step
