"""The embedded sampler: continuous batching on any Hugging Face causal LM.

Finished sequences leave the batch and waiting ones enter; a prompt that several requests share is prefilled once; a fork copies keys and values and prefills
nothing; an aborted sequence resumes later, under newer weights if there are any. Log-probabilities, entropies and alternatives are taken while sampling.

A sequence is its tokens plus how many of them are in the cache. A decode step feeds each running row its one missing token; prefill, resumption and extension feed
several; all are the same forward with different widths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.errors import InputError, NonFiniteError
from etude.models.attention import AttentionPlan
from etude.models.drawing import draw, entropy, truncate, uniforms
from etude.models.kv_cache import ParkedRow, SlotCache
from etude.models.lean_decoder import LeanDecoder
from etude.models.output_head import logits_at
from etude.models.sampling import DecodeClock, Event, FinishedEvent, Request, Sampler, SamplingParams, TokenEvent, default_slots
from etude.models.scoring import score
from etude.types import Alternatives, Completion, StopReason


@dataclass(slots=True, eq=False)
class _Sequence:
    """One sequence in flight. `tokens` is prompt and generated ones; `cached` is how many of them the cache row holds."""

    id: int
    params: SamplingParams
    stream: int
    prompt_length: int
    tokens: list[int]
    keep: bool
    cached: int = 0
    parked: ParkedRow | None = None
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    finished: StopReason | None = None
    stop_at: int | None = None
    prompt_version: int = -1
    """Version of the weights that its prompt's keys and values are of; -1 where they may be of several."""

    @property
    def drawn(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def plain(self) -> bool:
        """True when no truncation, greedy choice, stop string or alternatives slow the common path."""
        p = self.params
        return p.top_k == 0 and p.top_p == 1.0 and p.temperature > 0 and not p.stop and p.alternatives == 0


class Engine(Sampler):
    """Continuous batching over a shared model: the learner updates the same weights in place.

    `slots` is how many sequences run at once; `prefill_tokens` bounds one prefill forward.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        eos_ids: Sequence[int],
        context_length: int,
        slots: int = 0,
        prefill_tokens: int = 4096,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.eos_ids = frozenset(eos_ids)
        self.context_length = context_length
        self.version = 0
        self.clock = DecodeClock()
        self.plan = AttentionPlan.of(model)
        self.slots = slots or default_slots(self.plan.bytes_per_token, context_length)
        self.prefill_tokens = prefill_tokens
        self._device = next(model.parameters()).device
        self._cache = SlotCache(self.plan.layers, context_length)
        self._lean = LeanDecoder.of(model)
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._live: dict[int, _Sequence] = {}
        self._kept: dict[int, _Sequence] = {}
        self._next_id = 0

    # Requests

    def add(self, request: Request) -> int:
        self._check_length(len(request.prompt) + (len(request.prefix.tokens) if request.prefix else 0))
        sequence = _Sequence(
            id=self._take_id(),
            params=request.params,
            stream=request.stream,
            prompt_length=len(request.prompt),
            tokens=list(request.prompt),
            keep=request.keep,
        )
        if request.prefix is not None:
            self._adopt(sequence, request.prefix, len(request.prefix.tokens))
        self._enqueue(sequence)
        return sequence.id

    @torch.inference_mode()
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
        sequence = _Sequence(
            id=self._take_id(),
            params=params or source.params,
            stream=stream,
            prompt_length=source.prompt_length,
            tokens=source.tokens[: source.prompt_length],
            keep=keep,
        )
        if append:
            sequence.tokens = [*source.tokens[:length], *append]
            sequence.prompt_length = len(sequence.tokens)
        else:
            self._adopt(sequence, source, at)
        if take is not None:
            self._take(sequence, source, at, take)
        # The last token is always fed again: its logits are what the next draw needs.
        usable = min(source.cached, length, len(sequence.tokens) - 1)
        if usable > 0:
            sequence.parked = source.parked.head(usable) if source.parked else self._cache.park(self._running.index(source), usable)
            sequence.cached = usable
        self._enqueue(sequence)
        return sequence.id

    def abort(self, request: int) -> Completion:
        return self.abort_all([request])[0]

    @torch.inference_mode()
    def abort_all(self, requests: Sequence[int]) -> list[Completion]:
        for request in requests:
            if request not in self._live:
                raise InputError(f"request {request} can't be aborted: it is not in flight")
        sequences = [self._live[request] for request in requests]
        for sequence in sequences:
            if sequence in self._running:
                self._park_if_kept(self._running.index(sequence))
            else:
                self._waiting.remove(sequence)
            sequence.finished = "aborted"
        self._compact()
        return [self._retire(sequence) for sequence in sequences]

    def release(self, request: int) -> None:
        self._kept.pop(request, None)

    @property
    def pending(self) -> int:
        return len(self._live)

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _enqueue(self, sequence: _Sequence) -> None:
        self._live[sequence.id] = sequence
        self._waiting.append(sequence)

    def _check_length(self, length: int) -> None:
        if length >= self.context_length:
            raise InputError(
                f"a prompt of {length} tokens leaves no room in the model's context of {self.context_length}; shorten it or use a model with a longer context"
            )
        if length == 0:
            raise InputError("a prompt is empty; expected at least one token")

    @staticmethod
    def _adopt(sequence: _Sequence, source: Completion | _Sequence, count: int) -> None:
        """Take over the first `count` generated tokens of another sequence with all that is known of them."""
        generated = source.tokens if isinstance(source, Completion) else source.tokens[source.prompt_length :]
        sequence.tokens += generated[:count]
        sequence.logprobs = source.logprobs[:count]
        sequence.entropies = source.entropies[:count]
        sequence.versions = source.versions[:count]
        sequence.alternatives = source.alternatives[:count]

    def _take(self, sequence: _Sequence, source: _Sequence, at: int, token: int) -> None:
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

    # The step

    @torch.inference_mode()
    def step(self, token_events: bool = False) -> list[Event]:
        events: list[Event] = []
        continuing = len(self._running)
        entering = self._admit()
        if continuing:
            self.clock.steps += 1
            self.clock.slot_steps += self.slots
            self.clock.busy_slot_steps += continuing
            logits = self._forward_decode(continuing)
            self._draw(self._running[:continuing], logits, events if token_events else None)
        if entering:
            self._enter(entering, events if token_events else None)
        done = [s for s in self._running if s.finished]
        if done:
            for row, sequence in enumerate(self._running):
                if sequence.finished:
                    self._park_if_kept(row)
            self._compact()
            events += [FinishedEvent(s.id, self._retire(s)) for s in done]
        return events

    def _admit(self) -> list[_Sequence]:
        """Take waiting sequences while slots are free."""
        entering: list[_Sequence] = []
        while self._waiting and len(self._running) + len(entering) < self.slots:
            sequence = self._waiting.popleft()
            limit = min(sequence.params.max_new_tokens - sequence.drawn, self.context_length - len(sequence.tokens))
            if limit <= 0 and sequence.finished is None:
                # A resumed prefix that already has all its tokens: nothing to draw.
                sequence.finished = "length"
            entering.append(sequence)
        return entering

    def _enter(self, entering: list[_Sequence], events: list[Event] | None) -> None:
        """Fill the cache rows of new sequences and draw the first token of each.

        Sequences with the same tokens and nothing cached are one prefill and copies of it; a prompt that a running sequence has is copied too.
        """
        base = len(self._running)
        self._running += entering
        total = len(self._running)
        row_of = {s.id: base + i for i, s in enumerate(entering)}
        leaders: dict[tuple[int, ...], list[_Sequence]] = {}
        alone: list[_Sequence] = []
        by_park: dict[int, list[_Sequence]] = {}
        for sequence in entering:
            if sequence.finished:
                continue
            if sequence.parked is not None:
                by_park.setdefault(id(sequence.parked), []).append(sequence)
                alone.append(sequence)
            else:
                leaders.setdefault(tuple(sequence.tokens), []).append(sequence)
        for same in by_park.values():
            parked = same[0].parked
            assert parked is not None
            self._cache.unpark([row_of[s.id] for s in same], parked, total)
            for sequence in same:
                sequence.parked = None
        for tokens, group in leaders.items():
            self._share_prompt(tokens, group, row_of, total)
        firsts = [group[0] for group in leaders.values()] + alone
        # Similar lengths together: padding is computed for nothing.
        firsts.sort(key=lambda s: len(s.tokens) - s.cached)
        logits_of: dict[int, Tensor] = {}
        for batch in self._prefill_batches(firsts):
            logits = self._forward_rows(batch, [row_of[s.id] for s in batch], total)
            logits_of.update({s.id: logits[i] for i, s in enumerate(batch)})
        ordered: list[_Sequence] = []
        rows: list[Tensor] = []
        for group in leaders.values():
            first, rest = group[0], group[1:]
            if rest:
                self._cache.copy_rows([row_of[first.id]] * len(rest), [row_of[s.id] for s in rest], len(first.tokens), total)
                for sequence in rest:
                    sequence.cached = first.cached
            ordered += group
            rows += [logits_of[first.id]] * len(group)
        ordered += alone
        rows += [logits_of[s.id] for s in alone]
        if ordered:
            self._draw(ordered, torch.stack(rows), events)

    def _share_prompt(self, tokens: tuple[int, ...], group: list[_Sequence], row_of: dict[int, int], total: int) -> None:
        """Take a prompt's keys and values from a running sequence that has the same prompt, so that of hundreds of attempts at it only the first ones compute it.

        The last token is fed all the same, for its logits. After a change of weights a prompt is computed anew.
        """
        first = group[0]
        if len(tokens) != first.prompt_length:
            return
        for sequence in group:
            sequence.prompt_version = self.version
        for row, other in enumerate(self._running[: len(self._running) - len(row_of)]):
            if other.prompt_version == self.version and other.prompt_length == len(tokens) > 1 and other.tokens[: len(tokens)] == first.tokens:
                self._cache.copy_rows([row], [row_of[first.id]], len(tokens) - 1, total)
                first.cached = len(tokens) - 1
                return

    def _prefill_batches(self, sequences: Sequence[_Sequence]) -> list[list[_Sequence]]:
        batches: list[list[_Sequence]] = []
        width = 0
        for sequence in sequences:
            new = len(sequence.tokens) - sequence.cached
            if batches and (len(batches[-1]) + 1) * max(width, new) <= self.prefill_tokens:
                batches[-1].append(sequence)
                width = max(width, new)
            else:
                batches.append([sequence])
                width = new
        return batches

    def _forward_decode(self, count: int) -> Tensor:
        """One missing token of each of the first `count` rows; [count, V] logits."""
        running = self._running[:count]
        starts = np.fromiter((s.cached for s in running), dtype=np.int64, count=count)
        tokens = np.fromiter((s.tokens[-1] for s in running), dtype=np.int64, count=count)
        starts_B = torch.from_numpy(starts).to(self._device)
        tokens_B = torch.from_numpy(tokens).to(self._device)
        span = int(starts.max()) + 1
        uniform = bool((starts == starts[0]).all())
        self._cache.aim(slice(0, count), starts_B, 1, span, max(count, len(self._running)))
        for sequence in running:
            sequence.cached += 1
        if self._lean is not None:
            beyond = None if uniform else torch.arange(span, device=self._device) > starts_B[:, None]
            return self._lean.step(tokens_B, starts_B, self._cache, beyond).float()
        logits = self.model(
            input_ids=tokens_B[:, None],
            attention_mask=self.plan.mask(starts_B, 1, span, uniform=uniform),
            position_ids=starts_B[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        return logits[:, -1].float()

    def _forward_rows(self, sequences: list[_Sequence], rows: list[int], total_rows: int) -> Tensor:
        """All missing tokens of some sequences, into their rows; [B, V] logits after each one's last token."""
        new = [len(s.tokens) - s.cached for s in sequences]
        width, span = max(new), max(len(s.tokens) for s in sequences)
        inputs = np.zeros((len(sequences), width), dtype=np.int64)
        for i, (sequence, count) in enumerate(zip(sequences, new, strict=True)):
            inputs[i, :count] = sequence.tokens[sequence.cached :]
        starts_B = torch.tensor([s.cached for s in sequences], device=self._device)
        span = max(span, int(starts_B.max()) + width)
        span = min(span, self.context_length)
        inputs_BT = torch.from_numpy(inputs).to(self._device)
        positions_BT = (starts_B[:, None] + torch.arange(width, device=self._device)).clamp_(max=self.context_length - 1)
        self._cache.aim(torch.tensor(rows, device=self._device), starts_B, width, span, total_rows)
        last = torch.tensor(new, device=self._device) - 1
        with logits_at(self.model, torch.arange(len(sequences), device=self._device), last):
            logits = self.model(
                input_ids=inputs_BT,
                attention_mask=self.plan.mask(starts_B, width, span),
                position_ids=positions_BT,
                past_key_values=self._cache,
                use_cache=True,
            ).logits[0]
        self.clock.prefill_tokens += sum(new)
        for sequence in sequences:
            sequence.cached = len(sequence.tokens)
        return logits.float()

    # Drawing

    def _draw(self, sequences: list[_Sequence], logits_BV: Tensor, events: list[Event] | None) -> None:
        """Draw one token for each sequence, record it, and mark the sequences that end."""
        count = len(sequences)
        plain = all(s.plain for s in sequences)
        temperatures = [s.params.temperature for s in sequences]
        if any(t not in (0.0, 1.0) for t in temperatures):
            scale = torch.tensor([t if t > 0 else 1.0 for t in temperatures], device=self._device)
            logits_BV = logits_BV / scale[:, None]
        if not plain and any(s.params.top_k or s.params.top_p < 1 for s in sequences):
            top_k = torch.tensor([s.params.top_k for s in sequences], device=self._device)
            top_p = torch.tensor([s.params.top_p for s in sequences], device=self._device)
            logits_BV = truncate(logits_BV, top_k, top_p)
        logprobs_BV = logits_BV.log_softmax(dim=-1)
        probabilities_BV = logprobs_BV.exp()
        keys = np.fromiter((s.stream for s in sequences), dtype=np.uint64, count=count)
        counters = np.fromiter((s.drawn for s in sequences), dtype=np.uint64, count=count)
        tokens_B = draw(probabilities_BV, torch.from_numpy(uniforms(keys, counters)).to(self._device))
        if not plain:
            greedy = torch.tensor([t == 0 for t in temperatures], device=self._device)
            if bool(greedy.any()):
                tokens_B = torch.where(greedy, logits_BV.argmax(dim=-1), tokens_B)
        tokens = tokens_B.tolist()
        if max(tokens) >= logprobs_BV.shape[1]:
            # Inverse CDF finds no token where the probabilities are NaN.
            raise NonFiniteError("the logits are not finite: the model's weights hold NaN or infinity")
        logprobs = logprobs_BV.gather(1, tokens_B[:, None]).squeeze(1).tolist()
        entropies = entropy(probabilities_BV, logprobs_BV).tolist()
        alternatives = None if plain else self._alternatives(sequences, logprobs_BV)
        self.clock.generated_tokens += count
        for i, sequence in enumerate(sequences):
            token = tokens[i]
            sequence.tokens.append(token)
            sequence.logprobs.append(logprobs[i])
            sequence.entropies.append(entropies[i])
            sequence.versions.append(self.version)
            options = alternatives[i] if alternatives is not None else None
            if options is not None:
                sequence.alternatives.append(options)
            sequence.finished = self._stop_reason(sequence, token)
            if events is not None:
                events.append(TokenEvent(sequence.id, token, logprobs[i], entropies[i], options))

    @staticmethod
    def _alternatives(sequences: Sequence[_Sequence], logprobs_BV: Tensor) -> list[Alternatives | None] | None:
        """The most likely tokens of each sequence that asked for them; None where none did."""
        most = min(max(s.params.alternatives for s in sequences), logprobs_BV.shape[1])
        if not most:
            return None
        top = logprobs_BV.topk(most)
        tokens, values = top.indices.tolist(), top.values.tolist()
        wanted = [s.params.alternatives for s in sequences]
        return [Alternatives(t[:n], v[:n]) if n else None for t, v, n in zip(tokens, values, wanted, strict=True)]

    def _stop_reason(self, sequence: _Sequence, token: int) -> StopReason | None:
        params = sequence.params
        if token in self.eos_ids and not params.ignore_eos:
            return "eos"
        if params.stop:
            # A stop string can only have been completed by the newest token, so a short tail is enough to look at.
            tail = max(len(s) for s in params.stop) + 8
            text = self.tokenizer.decode(sequence.tokens[max(sequence.prompt_length, len(sequence.tokens) - tail) :], skip_special_tokens=True)
            if any(s in text for s in params.stop):
                return "stop"
        if sequence.drawn >= params.max_new_tokens or len(sequence.tokens) >= self.context_length:
            return "length"
        return None

    # Leaving

    def _park_if_kept(self, row: int) -> None:
        sequence = self._running[row]
        # One that was over before it entered still has what it was forked with.
        if sequence.keep and sequence.parked is None:
            sequence.parked = self._cache.park(row, sequence.cached) if sequence.cached else None

    def _compact(self) -> None:
        """Move the last running rows into the places of those that ended, so that running rows stay in front."""
        alive = [i for i, s in enumerate(self._running) if not s.finished]
        holes = [i for i in range(len(alive)) if self._running[i].finished]
        movers = alive[len(alive) - len(holes) :] if holes else []
        movers = [i for i in movers if i >= len(alive)]
        if movers:
            self._cache.copy_rows(movers, holes, max(self._running[i].cached for i in movers), len(self._running))
            for hole, mover in zip(holes, movers, strict=True):
                self._running[hole] = self._running[mover]
        del self._running[len(alive) :]

    def _retire(self, sequence: _Sequence) -> Completion:
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

    def _text(self, tokens: list[int], stop: tuple[str, ...]) -> str:
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        ends = [text.find(s) for s in stop if s in text]
        return text[: min(ends)] if ends else text

    # Scoring

    @torch.inference_mode()
    def score(self, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> list[list[float]]:
        for context, option in zip(contexts, options, strict=False):
            if context and option:
                self._check_length(len(context) + len(option) - 1)
        return score(self.model, contexts, options, tokens_at_once=self.prefill_tokens)
