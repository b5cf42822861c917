"""The sampler over vLLM: the same requests, tokens and random streams as the embedded engine, with paged attention and CUDA graphs underneath.

vLLM computes logits; everything else is Étude's: a logits processor draws (`vllm_drawing`), and `SequenceSampler` keeps account. vLLM holds copies of the weights,
which `update` renews in place. What is shared (a group's prompt, a fork's beginning, a resumed turn) comes out of its prefix cache, in whole blocks; prompts are
marked with the update that they were submitted after, so that nothing is read that other weights computed.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from etude.config import VLLMConfig
from etude.models.adapters import merged_weights
from etude.models.drawing import Drawn, draw_tokens
from etude.models.sampling import Event
from etude.models.scoring import check_scorable
from etude.models.sequences import SequenceSampler, SequenceState
from etude.models.vllm_engine import hand_over, prepare_import, start_engine
from etude.types import Alternatives

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput

SLOTS = 256
"""Sequences that run at once where nobody says."""


@dataclass(slots=True, eq=False)
class _Sequence(SequenceState):
    """`submitted` is vLLM's own name of it, empty while it waits; `started` says whether a token came since, after `prefilled` tokens of prompt."""

    submitted: str = ""
    started: bool = False
    prefilled: int = 0


class VLLMSampler(SequenceSampler[_Sequence]):
    """vLLM in this process, on copies of the weights.

    options: how vLLM is started. Raises MissingExtra where it is not installed, and InputError for what it cannot do, before anything is sampled.
    """

    sequence_class = _Sequence
    shares_weights: ClassVar[bool] = False

    def __init__(self, model: Any, tokenizer: Any, *, eos_ids: Sequence[int], context_length: int, slots: int = 0, options: VLLMConfig | None = None) -> None:
        options = options or VLLMConfig()
        context_length = min(context_length, options.vllm_context or context_length)
        super().__init__(tokenizer, eos_ids=eos_ids, context_length=context_length, slots=slots or SLOTS)
        self._notes: dict[int, tuple[int, float, float, Alternatives | None]] = {}
        self._given: dict[int, int] = {}
        """The one token that each request to score has to draw."""
        self._updates = 0
        self.engine = self._start(model, options)
        self._eager = bool(self.engine.vllm_config.model_config.enforce_eager)
        hand_over(self.engine, merged_weights(model))

    def _start(self, model: Any, options: VLLMConfig) -> Any:
        prepare_import()
        from etude.models.vllm_drawing import processor_for

        return start_engine(model, options, context_length=self.context_length, slots=self.slots, processor=processor_for(self._choose))

    # The step

    def step(self, token_events: bool = False) -> list[Event]:
        events: list[Event] = []
        entering = self._admit()
        over = [s for s in entering if s.finished]
        for sequence in entering:
            if not sequence.finished:
                self._submit(sequence)
                self._running.append(sequence)
        if self._running:
            self._advance(events if token_events else None)
            over += [s for s in self._running if s.finished]
            self._running = [s for s in self._running if not s.finished]
        return events + self._finished(over)

    def _submit(self, sequence: _Sequence) -> None:
        eos = [] if sequence.params.ignore_eos else sorted(self.eos_ids)
        sequence.started, sequence.prefilled = False, len(sequence.tokens)
        sequence.submitted = self._give(sequence.id, sequence.tokens, max_tokens=self._room(sequence), stop_token_ids=eos)

    def _give(self, number: int, tokens: list[int], **params: Any) -> str:
        """A request for vLLM; returns its name there."""
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        from etude.models.vllm_drawing import KEY

        asked = SamplingParams(temperature=0.0, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA, extra_args={KEY: number}, **params)
        return self.engine.add_request(str(number), tokens_input(list(tokens), cache_salt=str(self._updates)), asked)

    def _advance(self, events: list[Event] | None) -> None:
        """One step of vLLM: a token for every sequence whose prompt is computed."""
        stepped: list[tuple[_Sequence, RequestOutput]] = [(self._live[int(o.request_id)], o) for o in self.engine.step() if o.outputs[0].token_ids]
        # In the order of their numbers, whatever vLLM's is.
        stepped.sort(key=lambda pair: pair[0].id)
        sequences = [sequence for sequence, _ in stepped]
        if continuing := sum(sequence.started for sequence in sequences):
            self.clock.steps += 1
            self.clock.slot_steps += self.slots
            self.clock.busy_slot_steps += continuing
        for sequence, output in stepped:
            if not sequence.started:
                sequence.started = True
                self.clock.prefill_tokens += sequence.prefilled - (output.num_cached_tokens or 0)
        notes = [self._notes.pop(sequence.id) for sequence in sequences]
        self._record(sequences, Drawn([n[0] for n in notes], [n[1] for n in notes], [n[2] for n in notes], [n[3] for n in notes]), events)
        # vLLM knows of end tokens and limits, but not of stop strings.
        self._recall([s for s, output in stepped if s.finished and not output.finished])

    @torch.no_grad()
    def _choose(self, numbers: Sequence[int], logits_BV: Tensor) -> list[int]:
        """Draw for the requests with these numbers, and note what is known of each token. One whose prompt is not whole yet is asked again: the last note holds."""
        tokens: dict[int, int] = {}
        drawing = [i for i, n in enumerate(numbers) if n not in self._given]
        if drawing:
            sequences = [self._live[numbers[i]] for i in drawing]
            rows = logits_BV if len(drawing) == len(numbers) else logits_BV[drawing]
            drawn = draw_tokens(rows.float(), [s.params for s in sequences], [s.stream for s in sequences], [s.drawn for s in sequences])
            options = drawn.alternatives or [None] * len(sequences)
            for i, token, logprob, entropy, others in zip(drawing, drawn.tokens, drawn.logprobs, drawn.entropies, options, strict=True):
                self._notes[numbers[i]] = (token, logprob, entropy, others)
                tokens[i] = token
        for i, number in enumerate(numbers):
            if number in self._given:
                tokens[i] = self._given[number]
                logprob = float(logits_BV[i].float().log_softmax(-1)[tokens[i]])
                self._notes[number] = (tokens[i], logprob, 0.0, None)
        return [tokens[i] for i in range(len(numbers))]

    # Leaving and coming back

    def _withdraw(self, sequences: Sequence[_Sequence]) -> None:
        running = [s for s in sequences if s.submitted]
        self._recall(running)
        self._running = [s for s in self._running if s not in running]
        for sequence in sequences:
            if sequence not in running:
                self._waiting.remove(sequence)
            sequence.finished = "aborted"

    def _recall(self, sequences: Sequence[_Sequence]) -> None:
        """Take sequences out of vLLM; what they have stays here."""
        if sequences:
            self.engine.abort_request([s.submitted for s in sequences], internal=True)
        for sequence in sequences:
            sequence.submitted = ""
            self._notes.pop(sequence.id, None)

    def _requeue(self, sequences: list[_Sequence]) -> None:
        """Let some running sequences go in again at the next step, before all that wait."""
        self._recall(sequences)
        self._running = [s for s in self._running if s not in sequences]
        self._waiting.extendleft(reversed(sequences))

    def update(self, version: int, weights: Iterable[tuple[str, Tensor]] = ()) -> None:
        # One without a token yet could otherwise still read a prompt that the old weights computed.
        self._requeue([s for s in self._running if not s.started])
        hand_over(self.engine, weights)
        self._updates += 1
        self.version = version

    # Scoring

    def score(self, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> list[list[float]]:
        check_scorable(contexts, options)
        for context, option in zip(contexts, options, strict=True):
            self._check_length(len(context) + len(option) - 1)
        # vLLM steps all that it has; what runs must not move on meanwhile.
        self._requeue(list(self._running))
        asked: dict[int, int] = {}
        for i, (context, option) in enumerate(zip(contexts, options, strict=True)):
            asked[number := self._take_id()] = i
            self._given[number] = option[-1]
            # The last token is drawn, as it is given; only a longer option has to ask about its prompt, which then reads nothing from the prefix cache.
            self._give(number, [*context, *option[:-1]], max_tokens=1, prompt_logprobs=0 if len(option) > 1 else None)
        results: list[list[float]] = [[] for _ in contexts]
        before: dict[int, list[float]] = {}
        # A rank that nobody reads would be compiled otherwise, which takes a minute.
        with torch.compiler.set_stance("force_eager") if self._eager else nullcontext():
            while asked:
                for output in self.engine.step():
                    number = int(output.request_id)
                    i = asked[number]
                    known: Any = output.prompt_logprobs
                    if known:
                        given = [*contexts[i], *options[i][:-1]]
                        places = range(len(contexts[i]), len(given))
                        before[number] = [known[p][given[p]].logprob for p in places]
                    if output.finished:
                        results[i] = [*before.get(number, []), self._notes.pop(number)[1]]
                        del asked[number], self._given[number]
        return results
