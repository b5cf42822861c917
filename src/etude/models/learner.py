"""The learner: from judged trajectories to a weight update whose gradient does not depend on how the batch was cut.

Micro-batches bound memory and change no number, because every denominator is that of the whole optimiser batch. Logits exist only at positions that predict trained
tokens. Dropout is off, so that the learner's log-probabilities are the sampler's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from etude.config import LearnerConfig
from etude.errors import CheckpointError, NonFiniteError
from etude.models.attention import AttentionPlan
from etude.models.block_attention import no_mask, takes_blocks
from etude.models.lean_forward import LeanForward
from etude.models.output_head import logits_at, token_logprobs
from etude.models.packing import PackedBatch, micro_batches, pack_flat, pack_rows
from etude.models.precision import LossScale, OptimisedWeights
from etude.models.schedule import check_schedule, rate_factor
from etude.models.trainable import check_trainable
from etude.objectives import Objective, TokenBatch, TokenLogits, summed_weights
from etude.types import Metrics, Trajectory

SUMMAND = "summand"
"""Tag of a trajectory that says which summand of the loss it belongs to: each is aggregated by itself. Without it all belong to one."""
RANKS = "ranks"
"""Where a saved state says how many processes wrote the shards that belong to it."""
LOGITS_BYTES = 2**28
"""Memory that one micro-batch's logits may take."""
ACTIVATION_BYTES = 2**31
"""Memory that one micro-batch's activations may take, roughly."""


class Learner:
    """Updates a causal LM (adapters included) in place.

    temperature: log-probabilities are those of logits / temperature, as they were sampled. total_steps: steps of the loop that the schedule spans.
    default_lr: used when the configuration names no learning rate.
    Weights in a number format of less than float32 are stepped on as float32 copies. Raises InputError for a falling schedule without `total_steps`.
    """

    def __init__(self, model: Any, config: LearnerConfig, *, temperature: float = 1.0, total_steps: int = 0, default_lr: float = 2e-6) -> None:
        check_schedule(config.schedule, total_steps)
        self.model = model
        self.config = config
        self.temperature = temperature
        self.plan = AttentionPlan.of(model)
        self.flat = takes_blocks(model)
        """Whether micro-batches are one flat sequence; else padded rows."""
        self.device = next(model.parameters()).device
        self._text = model.config.get_text_config()
        self._reference: Any = None
        self._reference_lean: LeanForward | None = None
        self._later_reference: dict[str, Tensor] | None = None
        """The weights that train, as they were at the last `reset_reference`; None as long as the reference is the policy that the run began with."""
        self._lean = self._shorter_forward(model)
        self.weights = OptimisedWeights({name: p for name, p in model.named_parameters() if p.requires_grad})
        self.loss_scale = LossScale.of({p.dtype for p in model.parameters()})
        self.lr = config.lr if config.lr is not None else default_lr
        self.optimizer = torch.optim.AdamW(list(self.weights.by_name.values()), lr=self.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)
        self.total_steps = total_steps
        self.steps = 0
        """The step of the loop that comes next, from 0: one more than the last update's."""
        self._now = (0, 0)
        """The step of the loop and the optimiser step in it that is being computed."""
        self.budget = config.micro_batch_tokens or self._default_budget()
        _switch_off_dropout(model)
        model.eval()
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def _default_budget(self) -> int:
        per_token = 34 * 4 * self._text.hidden_size * self._text.num_hidden_layers
        return int(max(256, min(16384, LOGITS_BYTES // (4 * self._text.vocab_size), ACTIVATION_BYTES // per_token)))

    # Updating

    def update(self, units: Sequence[Sequence[Trajectory]], objective: Objective, *, step: int | None = None) -> Metrics:
        """`epochs` passes of `mini_batches` optimiser steps each over some trajectories. A unit's rows stay in one mini-batch.

        Every trained segment carries its advantages (where the objective reads them) and behaviour log-probabilities.
        step: the step of the loop that this is, from 0, which sets the learning rate; by default the one after the last update's.
        Returns means over the passes, keyed `loss/...`. Raises NonFiniteError before the optimiser step when a loss or gradient is not finite: the weights stay.
        Raises InputError for trajectories that cannot be trained on, naming the task.
        """
        check_trainable([t for unit in units for t in unit], whole=objective.whole_units)
        step = self.steps if step is None else step
        count = min(self.config.mini_batches, len(units))
        parts = [list(units[i::count]) for i in range(count)]
        old: dict[int, list[float]] = {}
        if self.config.epochs * count > 1:
            flat = [t for unit in units for t in unit]
            old = {id(t): values for t, values in zip(flat, self.logprobs(flat), strict=True)}
        reference: dict[int, list[float]] = {}
        if objective.needs_reference:
            flat = [t for unit in units for t in unit]
            reference = {id(t): values for t, values in zip(flat, self.logprobs(flat, reference=True), strict=True)}
        results: list[Metrics] = []
        for number in range(self.config.epochs * count):
            self._set_rate(step, number, self.config.epochs * count)
            self._now = (step, number)
            results.append(self._optimise(parts[number % count], objective, old, reference))
        self.steps = step + 1
        names = sorted({name for r in results for name in r})
        return {f"loss/{name}": sum(r[name] for r in results if name in r) / sum(name in r for r in results) for name in names}

    def _set_rate(self, step: int, part: int, parts: int) -> None:
        factor = rate_factor(self.config.schedule, step, part, parts, warmup=self.config.warmup_steps, total=self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor

    def _optimise(
        self, units: list[list[Trajectory]] | list[Any], objective: Objective, old: dict[int, list[float]], reference: dict[int, list[float]]
    ) -> Metrics:
        """One optimiser step."""
        trajectories = [t for unit in units for t in unit]
        unit_of = [u for u, unit in enumerate(units) for _ in unit]
        lengths = torch.tensor([t.trained_length for t in trajectories], dtype=torch.float64)
        weights = summed_weights(lengths, [t.tags.get(SUMMAND) for t in trajectories], objective.aggregation, objective.normal_length)
        skips_silent = objective.silent_without_advantage and not objective.whole_units
        wanted = [i for i, t in enumerate(trajectories) if t.trained_length and not (skips_silent and _silent(t))]
        while True:
            metrics = self._gradient(trajectories, wanted, unit_of, len(units), weights, objective, old, reference)
            metrics["lr"] = self.optimizer.param_groups[0]["lr"]
            if not wanted:
                return metrics
            norm = self._step()
            if norm is not None:
                return metrics | {"grad_norm": norm} | ({"scale": self.loss_scale.value} if self.loss_scale.active else {})

    def _gradient(
        self,
        trajectories: Sequence[Trajectory],
        wanted: Sequence[int],
        unit_of: Sequence[int],
        units: int,
        weights: Tensor,
        objective: Objective,
        old: dict[int, list[float]],
        reference: dict[int, list[float]],
    ) -> Metrics:
        """Accumulate the gradient of the whole mini-batch, times the loss scale."""
        sums: dict[str, tuple[float, float]] = {}
        loss = 0.0
        if self.config.gradient_checkpointing:
            self.model.train()
        self.weights.take_over()
        try:
            for members in self._micro_batches(trajectories, wanted, unit_of if objective.whole_units else None):
                packed = self._pack(trajectories, members)
                batch = self._token_batch(packed, trajectories, weights, unit_of, units, objective, old, reference)
                part, statistics = objective(batch)
                if not bool(torch.isfinite(part)):
                    self._refuse(f"the loss is {part.item()} on trajectories of task {trajectories[packed.members[0]].task.id!r} and others")
                (part * self.loss_scale.value if self.loss_scale.active else part).backward()
                self.weights.gather()
                loss += part.item()
                for name, (total, count) in statistics.items():
                    have = sums.get(name, (0.0, 0.0))
                    sums[name] = (have[0] + float(total), have[1] + float(count))
            loss, sums = self._whole_loss(loss, sums)
        finally:
            self.model.eval()
        return {name: total / count for name, (total, count) in sums.items() if count > 0} | {"total": loss}

    def _step(self) -> float | None:
        """Clip and step; returns the gradient's norm, or None where it overflowed and is to be computed again at a smaller loss scale."""
        self.weights.unscale(self.loss_scale.value)
        norm = self._clip()
        if not bool(torch.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            if self.loss_scale.active:
                self.loss_scale.overflowed()
                return None
            raise NonFiniteError(f"the gradient norm is {norm.item()}")
        self.optimizer.step()
        self.loss_scale.stepped()
        self.weights.write_back()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _micro_batches(self, trajectories: Sequence[Trajectory], wanted: Sequence[int], unit_of: Sequence[int] | None) -> list[list[int]]:
        """Micro-batches of the wanted trajectories; with `unit_of`, units are not cut, and keep their order."""
        bundles: dict[int, list[int]] = {}
        for i in wanted:
            bundles.setdefault(i if unit_of is None else unit_of[i], []).append(i)
        return self._cut(trajectories, list(bundles.values()))

    # What a learner that is one of several has to do otherwise

    def _cut(self, trajectories: Sequence[Trajectory], bundles: list[list[int]]) -> list[list[int]]:
        """The micro-batches that this learner computes: all that there are."""
        return micro_batches(trajectories, bundles, self.budget, flat=self.flat, share=self.config.share_prompts)

    def _refuse(self, what: str) -> None:
        """A loss is not finite."""
        raise NonFiniteError(what)

    def _whole_loss(self, loss: float, sums: dict[str, tuple[float, float]]) -> tuple[float, dict[str, tuple[float, float]]]:
        """Loss and statistics of the whole mini-batch, from those of the micro-batches that were computed here."""
        return loss, sums

    def _whole_logprobs(self, results: list[list[float]], model: Any) -> list[list[float]]:
        """Log-probabilities of all trajectories, from those that were computed here, with `model`; the others are empty."""
        return results

    def _clip(self) -> Tensor:
        """Clip the gradient; returns its norm before that."""
        return torch.nn.utils.clip_grad_norm_(list(self.weights.by_name.values()), self.config.grad_clip or math.inf)

    def _pack(self, trajectories: Sequence[Trajectory], members: Sequence[int]) -> PackedBatch:
        if self.flat:
            return pack_flat(trajectories, members, self.device, share=self.config.share_prompts)
        return pack_rows(trajectories, members, self.device)

    def _token_batch(
        self,
        packed: PackedBatch,
        trajectories: Sequence[Trajectory],
        weights: Tensor,
        unit_of: Sequence[int],
        units: int,
        objective: Objective,
        old: dict[int, list[float]],
        reference: dict[int, list[float]],
    ) -> TokenBatch:
        logits = self._logits(self.model, packed)
        logprobs_N = token_logprobs(logits, packed.targets, packed.predictor)
        members = [trajectories[i] for i in packed.members]

        def spread(values_N: Tensor) -> Tensor:
            return values_N.new_zeros((len(members), packed.length)).index_put((packed.owner, packed.place), values_N)

        def given(values: list[float]) -> Tensor:
            return spread(torch.tensor(values, dtype=torch.float32, device=self.device))

        mask = spread(torch.ones_like(logprobs_N))
        logprobs = spread(logprobs_N)
        trained = [s for t in members for s in t.segments if s.trained]
        entropies = None
        if objective.differentiates_entropy:
            full = logits.log_softmax(-1)
            entropies = spread(_by_token(-(full.exp() * full).sum(-1), packed))
        detached = logprobs.detach()
        # Spans that nobody is known to have sampled (demonstrations) count as sampled from the current policy.
        behaviour_N = torch.tensor([v for s in trained for v in (s.logprobs or [math.nan] * len(s.tokens))], dtype=torch.float32, device=self.device)
        behaviour = spread(torch.where(behaviour_N.isnan(), logprobs_N.detach(), behaviour_N))
        return TokenBatch(
            logprobs=logprobs,
            old_logprobs=given([v for t in members for v in old[id(t)]]) if old else detached,
            behaviour_logprobs=behaviour,
            advantages=given([v for s in trained for v in (s.advantages or [0.0] * len(s.tokens))]),
            mask=mask,
            weights=weights[packed.members].to(self.device, torch.float32)[:, None] * mask,
            unit=torch.tensor([unit_of[i] for i in packed.members], device=self.device),
            units=units,
            tokens=sum(t.trained_length for t in trajectories),
            reference_logprobs=given([v for t in members for v in reference[id(t)]]) if reference else None,
            entropies=entropies,
            logits=TokenLogits(logits, packed.targets, packed.owner, packed.place, packed.predictor),
            names=[(self._now[0], self._now[1], i) for i in packed.members],
        )

    def restart(self, *, total_steps: int) -> None:
        """Begin anew at the weights as they are: an optimiser that remembers nothing, and a schedule of `total_steps` steps from its start."""
        check_schedule(self.config.schedule, total_steps)
        self.optimizer.state.clear()
        self.total_steps, self.steps = total_steps, 0

    # Looking

    @torch.no_grad()
    def logprobs(self, trajectories: Sequence[Trajectory], *, reference: bool | Literal["start"] = False) -> list[list[float]]:
        """Log-probabilities of each trajectory's trained tokens, in order, under the current or the reference policy.

        reference: `start` is the policy that the run began with, which is the reference too until `reset_reference`.
        """
        model, switched = self._reference_model(start=reference == "start") if reference else (self.model, nullcontext())
        with switched:
            return self._of_trained(model, trajectories, lambda logits, packed: token_logprobs(logits, packed.targets, packed.predictor))

    @torch.no_grad()
    def readings(self, trajectories: Sequence[Trajectory], read: Callable[[Tensor], Tensor]) -> list[list[float]]:
        """What `read` makes of the logits, [N, V] to [N], that predict each trajectory's trained tokens, in order."""
        return self._of_trained(self.model, trajectories, lambda logits, packed: _by_token(read(logits), packed))

    def _of_trained(self, model: Any, trajectories: Sequence[Trajectory], value: Callable[[Tensor, PackedBatch], Tensor]) -> list[list[float]]:
        """A value of each trained token, from a micro-batch's logits."""
        check_trainable(trajectories)
        results: list[list[float]] = [[] for _ in trajectories]
        wanted = [i for i, t in enumerate(trajectories) if t.trained_length]
        for members in self._micro_batches(trajectories, wanted, None):
            packed = self._pack(trajectories, members)
            values = value(self._logits(model, packed), packed)
            counts = [trajectories[i].trained_length for i in packed.members]
            for index, part in zip(packed.members, values.split(counts), strict=True):
                results[index] = part.tolist()
        return self._whole_logprobs(results, model)

    def freeze_reference(self) -> None:
        """Keep the weights as they are now as the reference policy. With an adapter nothing is copied: the reference is the model without it."""
        if not self._has_adapter and self._reference is None:
            self._reference = copy.deepcopy(self.model).requires_grad_(False).eval()
            self._reference_lean = self._shorter_forward(self._reference)

    @torch.no_grad()
    def reset_reference(self, *, keep: float = 0.0) -> None:
        """Make the policy as it is now the reference, in place of the one before. What the run began with is kept beside it where `freeze_reference` was called.

        A copy of the weights that train is kept and saved with the state; with an adapter that is the adapter alone.
        keep: share of the earlier reference that stays, in [0, 1): reference <- keep reference + (1 - keep) policy. Above 0 it takes a reference that was reset before.
        """
        now = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
        if keep:
            if self._later_reference is None:
                raise RuntimeError("there is no reference to keep a share of; call reset_reference() before the first update")
            now = {name: value.float().lerp(self._later_reference[name].float(), keep).to(value.dtype) for name, value in now.items()}
        self._later_reference = now

    @property
    def _has_adapter(self) -> bool:
        return hasattr(self.model, "disable_adapter")

    def _reference_model(self, *, start: bool) -> tuple[Any, Any]:
        if self._later_reference is not None and not start:
            return self.model, self._exchanged(self._later_reference)
        if self._has_adapter:
            return self.model, self.model.disable_adapter()
        if self._reference is None:
            raise RuntimeError("there is no reference policy; call freeze_reference() before the first update")
        return self._reference, nullcontext()

    @contextmanager
    def _exchanged(self, weights: dict[str, Tensor]) -> Iterator[None]:
        """The model with other weights, copied in place: its layers may share memory with what joins them."""
        parameters = {name: p for name, p in self.model.named_parameters() if name in weights}
        own = {name: p.detach().clone() for name, p in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data.copy_(weights[name])
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data.copy_(own[name])

    def _logits(self, model: Any, packed: PackedBatch) -> Tensor:
        """Logits [M, V] at the places that predict trained tokens, over the temperature."""
        lean = self._lean if model is self.model else self._reference_lean
        if lean is not None and packed.blocks is not None:
            logits = lean(packed.inputs, packed.positions, packed.blocks, packed.columns)
            return logits if self.temperature == 1.0 else logits / self.temperature
        mask: Any = packed.seen
        extra: dict[str, Any] = {}
        if packed.blocks is not None:
            mask = no_mask(model, self.device)
            extra["blocks"] = packed.blocks
        with logits_at(model, packed.rows, packed.columns):
            logits = model(input_ids=packed.inputs, attention_mask=mask, position_ids=packed.positions, use_cache=False, **extra).logits[0].float()
        return logits if self.temperature == 1.0 else logits / self.temperature

    def _shorter_forward(self, model: Any) -> LeanForward | None:
        return LeanForward.of(model) if self.flat and not self.config.gradient_checkpointing else None

    # Saving

    write_shards: Callable[[Path], None] | None = None
    """Writes what `state` leaves out into a folder; None: it leaves out nothing."""

    def close(self) -> None:
        """Nothing is held besides memory."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Where in the schedule it is, optimiser state, float32 copies of weights and a reference that was reset: plain values, and tensors by name."""
        tensors = {f"master.{name}": value for name, value in self.weights.state().items()}
        tensors |= {f"reference.{name}": value.clone() for name, value in (self._later_reference or {}).items()}
        for name, parameter in self.weights.by_name.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value).clone()
        return {"steps": self.steps, "loss_scale": [self.loss_scale.value, self.loss_scale.good_steps]}, tensors

    def load_state(self, plain: dict[str, Any], tensors: dict[str, Tensor], shards: Path | None = None) -> None:
        """Go back to a saved state, exactly. The model's weights have to be those that it was saved with.

        shards: the folder of what several processes saved, where it was they (`etude.models.fsdp`). Raises CheckpointError when it is missing.
        """
        check_complete(plain, shards)
        if shards is not None:
            from etude.models.fsdp.shards import read_whole

            tensors = tensors | read_whole(shards)
        self._restore(plain, tensors)

    def _restore(self, plain: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.steps = int(plain["steps"])
        # Checkpoints of before there was a scale say nothing of it.
        self.loss_scale.value, self.loss_scale.good_steps = plain.get("loss_scale", (self.loss_scale.value, 0))
        self.weights.load_state({name.removeprefix("master."): value for name, value in tensors.items() if name.startswith("master.")})
        later = {name.removeprefix("reference."): value for name, value in tensors.items() if name.startswith("reference.")}
        self._later_reference = {name: value.to(self.device, copy=True) for name, value in later.items()} or None
        state: dict[int, dict[str, Tensor]] = {}
        for number, name in enumerate(self.weights.by_name):
            own = {key: tensors[f"{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors}
            if own:
                state[number] = own
        # torch puts each tensor where the optimiser wants it: a fused one has its step count on the parameter's device.
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def check_complete(plain: dict[str, Any], shards: Path | None) -> None:
    """Raises CheckpointError for a state that ranks saved, without what they wrote."""
    if plain.get(RANKS) and shards is None:
        raise CheckpointError(f"this state was saved by {plain[RANKS]} ranks, and their shards are not there; expected a checkpoint with the folder `shards`")


def _by_token(values_M: Tensor, packed: PackedBatch) -> Tensor:
    """What belongs to the places where logits are, for each trained token, [N]."""
    return values_M if packed.predictor is None else values_M.index_select(0, packed.predictor)


def _silent(trajectory: Trajectory) -> bool:
    return not any(a for s in trajectory.segments if s.trained for a in s.advantages)


def _switch_off_dropout(model: torch.nn.Module) -> None:
    """Gradient checkpointing runs in training mode; without dropout that computes what evaluation mode does."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]
