"""Policy-gradient losses: ratio x clip x correction x divergence x entropy, composed of the pure functions of this room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from etude.objectives.batch import Aggregation, Statistics, TokenBatch, masked
from etude.objectives.divergence import k1, k3
from etude.objectives.ratio import behaviour_ratio, token_ratio
from etude.objectives.surrogate import clipped_surrogate, dual_clipped

Ratio = Callable[[Tensor, Tensor, Tensor], Tensor]
Surrogate = Callable[[Tensor, Tensor, Tensor], Tensor]
Divergence = Callable[[Tensor, Tensor], Tensor]
Correction = Callable[[Tensor, Tensor], Tensor]
CorrectionKind = Literal["none", "truncate", "mask", "sequence_truncate", "sequence_mask"]
"""What is done about the gap between sampler and learner: nothing, or weights of tokens or of sequences that are truncated or masked at a cap."""


def ppo_surrogate(low: float, high: float, dual: float = 0.0) -> Surrogate:
    """The clipped surrogate as a function of (ratio, advantages, log-probs); above 0, `dual` bounds the loss of bad tokens too. It can be sent to another process."""
    return partial(_clipped, low=low, high=high, dual=dual)


def _clipped(ratio: Tensor, advantages: Tensor, _logprobs: Tensor, *, low: float, high: float, dual: float) -> Tensor:
    value = clipped_surrogate(ratio, advantages, low=low, high=high)
    return dual_clipped(value, advantages, bound=dual) if dual else value


@dataclass
class PolicyObjective:
    """A policy-gradient loss.

    `ratio(logprobs, old, mask)` and `surrogate(ratio, advantages, logprobs)` give the per-token loss. `correction(behaviour ratio, mask)`, where set,
    weighs it for the gap between sampler and learner. `divergence(logprobs, reference)` times `kl_coefficient` is added, in the same aggregation.
    `entropy_coefficient` times the entropy is taken off: the mean over all trained tokens of the optimiser batch, whatever the aggregation.
    `clip_low` and `clip_high` only serve the clip statistic. `kl_to_old`: the divergence is from the policy at the start of the update, and no reference is asked for. With
    one optimiser step an update it and its gradient are 0.

    Statistics are means over trained tokens, which were sampled from the policy at the start of the update, `old`, and not from the current one:
    `kl_old` estimates KL(old || pi) by r - 1 - log r with r = pi/old (k3 on samples of old); `kl_reference` estimates KL(pi || ref) by r (log pi - log ref),
    k1 with the importance weight that such samples want. `sampler_gap` is the mean of |log old - log mu|, mu being whoever sampled.
    """

    surrogate: Surrogate
    aggregation: Aggregation = "token_mean"
    ratio: Ratio = token_ratio
    correction: Correction | None = None
    divergence: Divergence = k3
    kl_coefficient: float = 0.0
    entropy_coefficient: float = 0.0
    normal_length: int = 0
    clip_low: float = 0.2
    clip_high: float = 0.2
    whole_units: bool = False
    kl_to_old: bool = False

    @property
    def needs_reference(self) -> bool:
        return self.kl_coefficient > 0 and not self.kl_to_old

    @property
    def differentiates_entropy(self) -> bool:
        return self.entropy_coefficient > 0

    @property
    def silent_without_advantage(self) -> bool:
        """True when a trajectory whose advantages are all 0 adds nothing to the loss or its gradient."""
        return self.kl_coefficient == 0 and not self.differentiates_entropy

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
        mask = batch.mask
        ratio = self.ratio(batch.logprobs, batch.old_logprobs, mask)
        loss = self.surrogate(ratio, batch.advantages, batch.logprobs)
        gap = behaviour_ratio(batch.old_logprobs, batch.behaviour_logprobs, mask).detach()
        if self.correction is not None:
            loss = loss * self.correction(gap, mask)
        clipped = ((ratio < 1 - self.clip_low) & (batch.advantages < 0)) | ((ratio > 1 + self.clip_high) & (batch.advantages > 0))
        statistics: Statistics = {
            "clip_fraction": masked(clipped.to(mask.dtype), mask),
            "ratio": masked(ratio, mask),
            "kl_old": masked(k3(batch.old_logprobs, batch.logprobs), mask),
            "sampler_gap": masked((batch.old_logprobs - batch.behaviour_logprobs).abs(), mask),
        }
        if self.kl_coefficient > 0:
            reference = batch.old_logprobs if self.kl_to_old else batch.reference_logprobs
            assert reference is not None
            divergence = self.divergence(batch.logprobs, reference)
            loss = loss + self.kl_coefficient * divergence
            weight = token_ratio(batch.logprobs, batch.old_logprobs, mask)
            statistics["kl_reference"] = masked(weight * k1(batch.logprobs, reference), mask)
        # where, not times: a masked position may hold anything, and infinity times zero is not zero.
        total = torch.where(mask > 0, loss * batch.weights, 0.0).sum()
        if batch.entropies is not None:
            statistics["entropy"] = masked(batch.entropies, mask)
            if self.differentiates_entropy:
                total = total - self.entropy_coefficient * (batch.entropies * mask).sum() / max(1, batch.tokens)
        return total, statistics


@dataclass
class AdaptiveEntropy:
    """Raise the entropy coefficient while entropy is below its target, lower it while above; applied only while entropy is at or below the target.

    The rule of Skywork-OR1 (arXiv:2505.22312, section 4): steps of `step`, within [0, `maximum`].
    """

    target: float = 0.2
    step: float = 0.005
    maximum: float = 1.0
    coefficient: float = 0.0

    def update(self, entropy: float) -> float:
        """Take in the newest mean entropy in nats; returns the coefficient to apply now."""
        change = self.step if entropy < self.target else -self.step
        self.coefficient = min(self.maximum, max(0.0, self.coefficient + change))
        return self.coefficient if entropy <= self.target else 0.0
