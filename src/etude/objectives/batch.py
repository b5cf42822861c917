"""What an objective sees, and what it must say of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

Aggregation = Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "dr_grpo", "constant"]
Statistics = dict[str, tuple[Tensor, Tensor]]
"""Name -> (sum, count), both scalars: the learner adds them up over micro-batches and divides once."""


@dataclass
class TokenLogits:
    """The logits that a micro-batch's log-probabilities were taken from, of N trained tokens, V tokens each.

    `distinct_MV` has those of tokens with the same past once: trained token n has row `predictor_N[n]` of it (None: row n). `targets_N` are the trained tokens. Token n's
    loss belongs at `[row_N[n], place_N[n]]` of the batch's [B, T] tensors.
    """

    distinct_MV: Tensor
    targets_N: Tensor
    row_N: Tensor
    place_N: Tensor
    predictor_N: Tensor | None = None

    @cached_property
    def logits_NV(self) -> Tensor:
        """One row for each trained token."""
        return self.distinct_MV if self.predictor_N is None else self.distinct_MV.index_select(0, self.predictor_N)


@dataclass
class TokenBatch:
    """One micro-batch: B trajectories, T positions after the prompt, padded on the right. All [B, T] unless said.

    `logprobs` are the current policy's, with gradient; `old_logprobs` those at the start of the update; `behaviour_logprobs` those of whoever sampled;
    `reference_logprobs` and `entropies` are None unless the objective asked for them. `mask` is 1 on tokens to train on. `weights` turn per-token losses
    into the aggregated loss by a plain sum: their denominators are those of the whole optimiser batch. `unit` [B] says which rows belong together.
    `units` is how many such units the whole optimiser batch has, `tokens` how many trained tokens: denominators of what is not weighted by `weights`.
    `logits` are there for a loss over more than the token that was taken. `names` tells the rows apart, by step of the loop, optimiser step in it and number of the
    trajectory: what a loss draws at random is to depend on these, and not on how the batch was cut.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    behaviour_logprobs: Tensor
    advantages: Tensor
    mask: Tensor
    weights: Tensor
    unit: Tensor
    units: int
    tokens: int
    reference_logprobs: Tensor | None = None
    entropies: Tensor | None = None
    logits: TokenLogits | None = None
    names: Sequence[tuple[int, int, int]] = ()


class Objective(Protocol):
    """What the optimiser minimises: a callable on micro-batches whose results add up."""

    @property
    def aggregation(self) -> Aggregation: ...

    @property
    def normal_length(self) -> int:
        """The constant L_max of the `dr_grpo` aggregation, or the whole constant of `constant`; unused by others."""
        ...

    @property
    def needs_reference(self) -> bool: ...

    @property
    def differentiates_entropy(self) -> bool: ...

    @property
    def silent_without_advantage(self) -> bool:
        """True when a trajectory whose advantages are all 0 adds nothing to the loss or its gradient, so that its forward can be left out."""
        ...

    @property
    def whole_units(self) -> bool:
        """True when the rows of a unit must reach it in one call, in order, one trajectory a row."""
        ...

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
        """The micro-batch's share of the loss (a scalar to add up and differentiate) and statistics."""
        ...


def token_weights(lengths_B: Tensor, aggregation: Aggregation, normal_length: int = 0) -> Tensor:
    """The weight of each trained token of each of B trajectories, so that the aggregated loss is the sum of weight times loss. Returns [B].

    lengths_B: trained tokens of each trajectory of the whole optimiser batch.
    token_mean: 1 / all tokens (DAPO, arXiv:2503.14476, eq. 12). seq_mean_token_mean: 1 / (B L_i) (GRPO). seq_mean_token_sum: 1 / B.
    dr_grpo: 1 / (B L_max) with a constant L_max (Dr. GRPO, arXiv:2503.20783). constant: 1 / L, so that a batch of more trajectories has a larger loss (DARS,
    arXiv:2508.13755). Trajectories without trained tokens count nowhere.
    """
    counted = (lengths_B > 0).to(torch.float64)
    trajectories = counted.sum().clamp_min(1)
    if aggregation == "token_mean":
        return counted / lengths_B.sum().clamp_min(1)
    if aggregation == "seq_mean_token_mean":
        return counted / (trajectories * lengths_B.clamp_min(1))
    if aggregation == "seq_mean_token_sum":
        return counted / trajectories
    if normal_length < 1:
        raise ValueError(f"the {aggregation} aggregation needs a normal_length of at least 1")
    if aggregation == "constant":
        return counted / normal_length
    return counted / (trajectories * normal_length)


def summed_weights(lengths_B: Tensor, summands: Sequence[object], aggregation: Aggregation, normal_length: int = 0) -> Tensor:
    """The same for a loss that is a sum: the trajectories of each summand are aggregated among themselves, and the results are added up. Returns [B].

    summands: which summand each of the B trajectories belongs to; with one value for all it is `token_weights`.
    """
    weights = torch.empty(len(lengths_B), dtype=torch.float64)
    for summand in dict.fromkeys(summands):
        members = torch.tensor([s == summand for s in summands])
        weights[members] = token_weights(lengths_B[members], aggregation, normal_length)
    return weights


def masked(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the mask and how many that are, without gradient: one entry of `Statistics`."""
    return (values.detach() * mask).sum(), mask.sum()
