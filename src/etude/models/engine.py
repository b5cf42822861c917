"""The embedded sampler: continuous batching on any Hugging Face causal LM.

Finished sequences leave the batch and waiting ones enter; a prompt that several requests share is prefilled once; a fork copies keys and values and prefills
nothing; an aborted sequence resumes later, under newer weights if there are any. Log-probabilities, entropies and alternatives are taken while sampling.

A sequence is its tokens plus how many of them are in the cache. A decode step feeds each running row its one missing token; prefill, resumption and extension feed
several; all are the same forward with different widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.models.attention import AttentionPlan
from etude.models.drawing import draw_tokens
from etude.models.kv_cache import ParkedRow, SlotCache
from etude.models.lean_decoder import LeanDecoder
from etude.models.output_head import logits_at
from etude.models.sampling import Event, default_slots
from etude.models.scoring import score
from etude.models.sequences import SequenceSampler, SequenceState


@dataclass(slots=True, eq=False)
class _Sequence(SequenceState):
    """`cached` is how many of its tokens the cache row holds."""

    cached: int = 0
    parked: ParkedRow | None = None
    prompt_version: int = -1
    """Version of the weights that its prompt's keys and values are of; -1 where they may be of several."""


class Engine(SequenceSampler[_Sequence]):
    """Continuous batching over a shared model: the learner updates the same weights in place.

    `slots` is how many sequences run at once; `prefill_tokens` bounds one prefill forward.
    """

    sequence_class = _Sequence
    shares_weights: ClassVar[bool] = True

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
        self.plan = AttentionPlan.of(model)
        super().__init__(tokenizer, eos_ids=eos_ids, context_length=context_length, slots=slots or default_slots(self.plan.bytes_per_token, context_length))
        self.prefill_tokens = prefill_tokens
        self._device = next(model.parameters()).device
        self._cache = SlotCache(self.plan.layers, context_length)
        self._lean = LeanDecoder.of(model)

    # Requests

    @torch.inference_mode()
    def _reuse(self, sequence: _Sequence, source: _Sequence, length: int) -> None:
        # The last token is always fed again: its logits are what the next draw needs.
        usable = min(source.cached, length, len(sequence.tokens) - 1)
        if usable > 0:
            sequence.parked = source.parked.head(usable) if source.parked else self._cache.park(self._running.index(source), usable)
            sequence.cached = usable

    @torch.inference_mode()
    def _withdraw(self, sequences: Sequence[_Sequence]) -> None:
        for sequence in sequences:
            if sequence in self._running:
                self._park_if_kept(self._running.index(sequence))
            else:
                self._waiting.remove(sequence)
            sequence.finished = "aborted"
        self._compact()

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
            events += self._finished(done)
        return events

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

    def _draw(self, sequences: list[_Sequence], logits_BV: Tensor, events: list[Event] | None) -> None:
        """Draw one token for each sequence, record it, and mark the sequences that end."""
        drawn = draw_tokens(logits_BV, [s.params for s in sequences], [s.stream for s in sequences], [s.drawn for s in sequences])
        self._record(sequences, drawn, events)

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

    # Scoring

    @torch.inference_mode()
    def score(self, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> list[list[float]]:
        for context, option in zip(contexts, options, strict=False):
            if context and option:
                self._check_length(len(context) + len(option) - 1)
        return score(self.model, contexts, options, tokens_at_once=self.prefill_tokens)
