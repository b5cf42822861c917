"""The sampler whose work is done by several processes: each holds a model and an ordinary sampler, and this one keeps account of all of them.

Every token is known here when its step is handed out: number, log-probability, version. So a fork, an abort and the loss of a worker are what they are in one
process: what a lost worker had is given to another from the last token that was handed out, and the same tokens are drawn from there on, because a sequence's random
numbers are its own. Nothing is handed out twice.

All samplers take the same steps. Several are asked for at once and handed out one by one, unless somebody hears of every token, or goes on with requests that end;
what is done in between reaches a worker a few steps later, which changes no token, and what it drew beyond the step at which a request was stopped is forgotten.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from etude.distributed.crew import Crew, Gone
from etude.distributed.sampler_worker import Abort, Add, Command, Facts, Fork, Opening, Release, SamplerWorker, Step
from etude.distributed.weights import packed
from etude.models.adapters import merged_weights, without_adapter
from etude.models.drawing import Drawn
from etude.models.sampling import Event, Request
from etude.models.scoring import check_scorable
from etude.models.sequences import SequenceSampler, SequenceState
from etude.models.skeletons import skeleton_of, tensors_of
from etude.types import Completion

Weights = tuple[int, Any]
"""A version, and where its weights lie in the object store; None for those that workers were opened with."""
STEPS_AT_ONCE = 16
"""Steps that workers are asked for in one message, where nothing has to be done after each."""


@dataclass(slots=True, eq=False)
class _Sequence(SequenceState):
    """worker: who has it. source: whose beginning it has, and how many tokens of that, prompt included; None for a request of its own."""

    worker: int = -1
    source: tuple[_Sequence, int] | None = None


@dataclass
class _Worker:
    """What is known here of one worker. commands: what it has not been told yet. ahead: steps that it has done and nobody has seen."""

    slots: int
    live: dict[int, _Sequence] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    ahead: deque[Step] = field(default_factory=deque)
    prompts: Counter[tuple[int, ...]] = field(default_factory=Counter)
    """Prompts of what it has in flight."""


class RaySampler(SequenceSampler[_Sequence]):
    """Samplers in the processes of a crew, as one. `slots` are those of all of them.

    model, tokenizer: those of the learner; workers get copies. opening: how they are opened, without skeleton and tokenizer. Raises InputError for what a worker
    refuses, and from `step`, `score` and `update` WorkerLost when one cannot be replaced.
    """

    sequence_class = _Sequence
    shares_weights: ClassVar[bool] = False

    def __init__(self, ray: Any, model: Any, tokenizer: Any, *, eos_ids: Sequence[int], count: int, cpus: int, gpus: float, **opening: Any) -> None:
        self._ray = ray
        dense = without_adapter(model)
        plain = skeleton_of(model)
        if dense is not model:
            plain = plain.unload()
        # Once in the object store, whoever is opened reads it there.
        names = tensors_of(plain)
        values = {**dict(merged_weights(model)), **{name: t for name, t in dense.named_buffers() if name in names}}
        self._opening = ray.put(Opening(plain, tokenizer, **opening))
        self._values = ray.put(packed(values.items()))
        self._used: Weights = (0, None)
        """What workers have."""
        self.given: Weights = self._used
        """What `update` was given last."""
        self._closed = False
        self.held_back = False
        """New weights wait for `renew`: somebody else decides from when on they are used."""
        self._crew = Crew(ray, SamplerWorker, count, "sampler", cpus=cpus, gpus=gpus, opening=lambda: (self._opening, self._values, *self._used))
        facts: list[Facts] = self._crew.facts
        self._workers = [_Worker(fact.slots) for fact in facts]
        super().__init__(tokenizer, eos_ids=eos_ids, context_length=min(fact.context_length for fact in facts), slots=sum(fact.slots for fact in facts))

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [fact.pid for fact in self._crew.facts]

    # Requests

    def _reuse(self, sequence: _Sequence, source: _Sequence, length: int) -> None:
        sequence.source = (source, length)

    def _enqueue(self, sequence: _Sequence) -> None:
        self._live[sequence.id] = sequence
        prompt = tuple(sequence.tokens[: sequence.prompt_length])
        home = sequence.source[0].worker if sequence.source is not None else self._home(prompt)
        sequence.worker = home if home is not None and self._has_room(home) else self._emptiest(home)
        worker = self._workers[sequence.worker]
        worker.live[sequence.id] = sequence
        worker.prompts[prompt] += 1
        if sequence.source is not None and sequence.worker == home:
            worker.commands.append(self._forked(sequence, *sequence.source))
        else:
            worker.commands.append(Add(sequence.id, self._whole(sequence)))
        sequence.source = None

    def _home(self, prompt: tuple[int, ...]) -> int | None:
        """Who has the prompt already, and reads it no second time."""
        return next((number for number, worker in enumerate(self._workers) if worker.prompts[prompt]), None)

    def _has_room(self, number: int) -> bool:
        return len(self._workers[number].live) < self._workers[number].slots

    def _emptiest(self, home: int | None) -> int:
        """The worker with the fewest requests; where all are full, the one that has what is shared."""
        number = min(range(len(self._workers)), key=lambda i: (len(self._workers[i].live), i))
        return home if home is not None and not self._has_room(number) else number

    def _forked(self, sequence: _Sequence, source: _Sequence, length: int) -> Fork:
        rest, at = sequence.tokens[length:], length - source.prompt_length
        appended = sequence.prompt_length != source.prompt_length
        take = rest[0] if rest and not appended else None
        return Fork(sequence.id, self._whole(sequence), source.id, at, take, tuple(rest) if appended else ())

    def _whole(self, sequence: _Sequence) -> Request:
        """The request that goes on where the sequence is now."""
        tokens, length = sequence.tokens, sequence.prompt_length
        prefix = None
        if sequence.drawn:
            known = (list(sequence.logprobs), list(sequence.entropies), list(sequence.versions), "aborted", list(sequence.alternatives))
            prefix = Completion(sequence.id, tokens[:length], tokens[length:], "", *known)
        return Request(tuple(tokens[:length]), sequence.params, sequence.stream, prefix, sequence.keep)

    def release(self, request: int) -> None:
        if request in self._kept:
            self._workers[self._kept[request].worker].commands.append(Release(request))
        super().release(request)

    # The step

    def step(self, token_events: bool = False) -> list[Event]:
        busy = [i for i, worker in enumerate(self._workers) if worker.live]
        one_by_one = token_events or any(sequence.keep for sequence in self._live.values())
        self._advance([i for i in busy if not self._workers[i].ahead], 1 if one_by_one else STEPS_AT_ONCE)
        events: list[Event] = []
        taken = [self._workers[i].ahead.popleft() for i in busy if self._workers[i].ahead]
        self._count(taken)
        over: list[_Sequence] = []
        for step in taken:
            over += self._hand_out(step, events if token_events else None)
        for sequence in over:
            self._leave(sequence)
        return events + self._finished(over)

    def _advance(self, numbers: Sequence[int], steps: int) -> None:
        """Have workers go on, all at once, and wait for them. Those that die are replaced and asked again."""
        while numbers:
            asked = {i: self._crew.ask(i, "advance", self._workers[i].commands, steps) for i in numbers}
            for i in numbers:
                self._workers[i].commands = []
            answers, gone = self._crew.settle(asked)
            for i, done in answers.items():
                self._workers[i].ahead += done
            for i, error in gone.items():
                self._start_again(i, error)
            numbers = list(gone)

    def _start_again(self, number: int, error: Gone) -> None:
        """Give a lost worker's requests to another, each from the token that it had reached. What was kept there is gone, and a fork of it reads its tokens again."""
        worker = self._workers[number]
        self._crew.replace(number, error, f", and {len(worker.live)} requests are issued again")
        worker.ahead.clear()
        worker.commands = [Add(i, self._whole(sequence)) for i, sequence in sorted(worker.live.items())]

    def _count(self, steps: Sequence[Step]) -> None:
        """One step of the clock for all that the workers did side by side."""
        if any(step.clock.steps for step in steps):
            self.clock.steps += 1
            self.clock.slot_steps += self.slots
        self.clock.busy_slot_steps += sum(step.clock.busy_slot_steps for step in steps)
        self.clock.prefill_tokens += sum(step.clock.prefill_tokens for step in steps)

    def _hand_out(self, step: Step, events: list[Event] | None) -> list[_Sequence]:
        """Write a worker's tokens onto their sequences; returns those that are over."""
        places = [i for i, number in enumerate(step.numbers) if number in self._live]
        sequences = [self._live[step.numbers[i]] for i in places]
        options = [step.alternatives[i] for i in places]
        drawn = Drawn(
            [step.tokens[i] for i in places],
            [step.logprobs[i] for i in places],
            [step.entropies[i] for i in places],
            options if any(o is not None for o in options) else None,
        )
        self._record(sequences, drawn, events, version=step.version)
        # One that had all its tokens when it was taken ends without another.
        for number, reason in step.ended.items():
            if (sequence := self._live.get(number)) is not None and sequence not in sequences:
                sequence.finished = reason
                sequences.append(sequence)
        return [sequence for sequence in sequences if sequence.finished]

    # Leaving

    def _withdraw(self, sequences: Sequence[_Sequence]) -> None:
        for sequence in sequences:
            self._workers[sequence.worker].commands.append(Abort(sequence.id))
            self._leave(sequence)
            sequence.finished = "aborted"

    def _leave(self, sequence: _Sequence) -> None:
        worker = self._workers[sequence.worker]
        del worker.live[sequence.id]
        prompt = tuple(sequence.tokens[: sequence.prompt_length])
        worker.prompts[prompt] -= 1
        if not worker.prompts[prompt]:
            del worker.prompts[prompt]
        if not worker.live:
            # What is left was drawn for requests that were stopped.
            worker.ahead.clear()

    # Weights

    @property
    def newest(self) -> int:
        return self.given[0]

    def update(self, version: int, weights: Iterable[tuple[str, Tensor]] = ()) -> None:
        if self._closed:
            # There is nobody to hand them to, as when a finished run's model is written.
            self.given = (version, None)
            return
        self.given = (version, self._ray.put(packed(weights)))
        if not self.held_back:
            self.renew(self.given)

    def renew(self, weights: Weights) -> None:
        """Hand weights to all workers, where they have not got them."""
        if self._used is weights:
            return
        self._used = weights
        self.version = weights[0]
        _, gone = self._crew.settle({i: self._crew.ask(i, "renew", *weights) for i in range(len(self._crew))})
        for i, error in gone.items():
            self._start_again(i, error)

    # Scoring

    def score(self, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> list[list[float]]:
        check_scorable(contexts, options)
        for context, option in zip(contexts, options, strict=True):
            self._check_length(len(context) + len(option) - 1)
        size = -(-len(contexts) // len(self._crew))
        parts = {i: slice(i * size, (i + 1) * size) for i in range(len(self._crew)) if i * size < len(contexts)}
        scored: dict[int, list[list[float]]] = {}
        while left := [i for i in parts if i not in scored]:
            answers, gone = self._crew.settle({i: self._crew.ask(i, "score", contexts[parts[i]], options[parts[i]]) for i in left})
            scored |= answers
            for i, error in gone.items():
                self._start_again(i, error)
        return [values for i in sorted(scored) for values in scored[i]]

    def close(self) -> None:
        """End the workers. Nothing can be sampled afterwards."""
        self._closed = True
        self._crew.close()
