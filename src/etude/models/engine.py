"""The embedded sampler: continuous batching on any Hugging Face causal LM.

Finished sequences leave the batch and waiting ones enter; a prompt that several requests share is prefilled once; a fork copies keys and values and prefills
nothing; an aborted sequence resumes later, under newer weights if there are any. Log-probabilities, entropies and alternatives are taken while sampling.

A sequence is its tokens plus how many of them are in the cache. A decode step feeds each running row its one missing token; prefill, resumption and extension feed
several; all are the same forward with different widths.

Sequences with the same tokens are in one row of the cache, and are computed as one, until they draw different tokens: attempts at one prompt begin alike more often
than not. Each draws by its own random stream all the same.
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
from etude.models.recorded_steps import RecordedSteps
from etude.models.sampling import Event, default_slots
from etude.models.scoring import score
from etude.models.sequences import SequenceSampler, SequenceState


@dataclass(slots=True, eq=False)
class _Sequence(SequenceState):
    """`cached` is how many of its tokens the cache holds, in its `row`; others with the same tokens may be in that too."""

    cached: int = 0
    row: int = -1
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
        self._recorded = RecordedSteps.of(self._lean, self._cache, self.slots, self._device)
        self._rows: list[list[_Sequence]] = []
        """The running sequences in each row of the cache; those of a row have the same tokens."""

    # Requests

    @torch.inference_mode()
    def _reuse(self, sequence: _Sequence, source: _Sequence, length: int) -> None:
        # The last token is always fed again: its logits are what the next draw needs.
        usable = min(source.cached, length, len(sequence.tokens) - 1)
        if usable > 0:
            sequence.parked = source.parked.head(usable) if source.parked else self._cache.park(source.row, usable)
            sequence.cached = usable

    @torch.inference_mode()
    def _withdraw(self, sequences: Sequence[_Sequence]) -> None:
        for sequence in sequences:
            if sequence.row >= 0:
                self._park_if_kept(sequence)
            else:
                self._waiting.remove(sequence)
            sequence.finished = "aborted"
        self._compact()

    # The step

    @torch.inference_mode()
    def step(self, token_events: bool = False) -> list[Event]:
        events: list[Event] = []
        entering = self._admit()
        if self._rows:
            self.clock.steps += 1
            self.clock.slot_steps += self.slots
            self.clock.busy_slot_steps += len(self._running)
            self._draw(list(self._running), self._forward_decode(), 0, len(self._running) + len(entering), events if token_events else None)
        if entering:
            self._enter(entering, events if token_events else None)
        done = [s for s in self._running if s.finished]
        if done:
            for sequence in done:
                self._park_if_kept(sequence)
            self._compact()
            events += self._finished(done)
        return events

    def _enter(self, entering: list[_Sequence], events: list[Event] | None) -> None:
        """Fill the cache rows of new sequences and draw the first token of each.

        Sequences with the same tokens, and the same part of them cached, have one row; a prompt that a running sequence has is copied.
        """
        earlier = list(self._running)
        self._running += entering
        total = len(self._running)
        base = len(self._rows)
        alike: dict[tuple[int, ...], list[_Sequence]] = {}
        for sequence in entering:
            if not sequence.finished:
                held = (0, 0) if sequence.parked is None else (sequence.parked.keys.data_ptr(), sequence.cached)
                alike.setdefault((*held, *sequence.tokens), []).append(sequence)
        for group in alike.values():
            self._place(group)
            first = group[0]
            if first.parked is not None:
                self._cache.unpark([first.row], first.parked, total)
                for sequence in group:
                    sequence.parked = None
            else:
                self._share_prompt(group, earlier, total)
        # Similar lengths together: padding is computed for nothing.
        firsts = sorted((group[0] for group in alike.values()), key=lambda s: len(s.tokens) - s.cached)
        logits_of: dict[int, Tensor] = {}
        for batch in self._prefill_batches(firsts):
            logits = self._forward_rows(batch, total)
            logits_of.update({s.row: logits[i] for i, s in enumerate(batch)})
        for group in self._rows[base:]:
            for sequence in group:
                sequence.cached = group[0].cached
        if firsts:
            rows = [logits_of[row] for row in range(base, len(self._rows))]
            self._draw([s for group in alike.values() for s in group], torch.stack(rows), base, total, events)

    def _place(self, group: list[_Sequence]) -> None:
        """Give some sequences with the same tokens the next row."""
        for sequence in group:
            sequence.row = len(self._rows)
        self._rows.append(group)

    def _share_prompt(self, group: list[_Sequence], earlier: Sequence[_Sequence], total: int) -> None:
        """Take a prompt's keys and values from an earlier sequence that has the same prompt, so that of hundreds of attempts at it only the first ones compute it.

        The last token is fed all the same, for its logits. After a change of weights a prompt is computed anew.
        """
        first = group[0]
        length = first.prompt_length
        if len(first.tokens) != length:
            return
        for sequence in group:
            sequence.prompt_version = self.version
        for other in earlier:
            if other.prompt_version == self.version and other.prompt_length == length > 1 and other.tokens[:length] == first.tokens:
                self._cache.copy_rows([other.row], [first.row], length - 1, total)
                first.cached = length - 1
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

    def _forward_decode(self) -> Tensor:
        """The one missing token of each row; [rows, V] logits."""
        count = len(self._rows)
        starts = np.fromiter((group[0].cached for group in self._rows), dtype=np.int64, count=count)
        tokens = np.fromiter((group[0].tokens[-1] for group in self._rows), dtype=np.int64, count=count)
        starts_B = torch.from_numpy(starts).to(self._device)
        tokens_B = torch.from_numpy(tokens).to(self._device)
        span = int(starts.max()) + 1
        for sequence in self._running:
            sequence.cached += 1
        if self._recorded is not None:
            logits = self._recorded.step(tokens_B, starts_B, span)
            if logits is not None:
                return logits.float()
        uniform = bool((starts == starts[0]).all())
        self._cache.aim(slice(0, count), starts_B, 1, span, len(self._running))
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

    def _forward_rows(self, sequences: list[_Sequence], total_rows: int) -> Tensor:
        """All missing tokens of some sequences, into their rows; [B, V] logits after each one's last token."""
        rows = [s.row for s in sequences]
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

    def _draw(self, sequences: list[_Sequence], logits_RV: Tensor, base: int, total_rows: int, events: list[Event] | None) -> None:
        """Draw one token for each sequence, from the logits of the rows from `base` on, record it, and mark the sequences that end.

        Those of a row that drew different tokens part: the first stays with those like it, the others' rows are copies.
        """
        drawn = draw_tokens(
            logits_RV, [s.params for s in sequences], [s.stream for s in sequences], [s.drawn for s in sequences], [s.row - base for s in sequences]
        )
        self._record(sequences, drawn, events)
        sources: list[int] = []
        first_new = len(self._rows)
        for row in range(base, first_new):
            if len(self._rows[row]) == 1:
                continue
            by_token: dict[int, list[_Sequence]] = {}
            for sequence in self._rows[row]:
                if not sequence.finished:
                    by_token.setdefault(sequence.tokens[-1], []).append(sequence)
            for group in list(by_token.values())[1:]:
                self._place(group)
                sources.append(row)
            if len(by_token) > 1:
                # Who ended stays too, for what may be kept of it.
                self._rows[row] = [s for s in self._rows[row] if s.row == row]
        if sources:
            self._cache.copy_rows(sources, range(first_new, len(self._rows)), max(self._rows[row][0].cached for row in sources), total_rows)

    # Leaving

    def _park_if_kept(self, sequence: _Sequence) -> None:
        # One that was over before it entered still has what it was forked with.
        if sequence.keep and sequence.parked is None:
            sequence.parked = self._cache.park(sequence.row, sequence.cached) if sequence.cached else None

    def _compact(self) -> None:
        """Let go of what ended, and move the last rows into the places of those that nobody runs in any more, so that running rows stay in front."""
        self._running = [s for s in self._running if not s.finished]
        self._rows = [[s for s in group if not s.finished] for group in self._rows]
        holes = [row for row, group in enumerate(self._rows) if not group]
        count = len(self._rows) - len(holes)
        movers = [row for row in range(count, len(self._rows)) if self._rows[row]]
        holes = holes[: len(movers)]
        if movers:
            self._cache.copy_rows(movers, holes, max(self._rows[row][0].cached for row in movers), count)
            for hole, mover in zip(holes, movers, strict=True):
                self._rows[hole] = self._rows[mover]
                for sequence in self._rows[hole]:
                    sequence.row = hole
        del self._rows[count:]

    # Scoring

    @torch.inference_mode()
    def score(self, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> list[list[float]]:
        for context, option in zip(contexts, options, strict=False):
            if context and option:
                self._check_length(len(context) + len(option) - 1)
        return score(self.model, contexts, options, tokens_at_once=self.prefill_tokens)
