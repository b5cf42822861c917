"""Importance ratios between the current policy and the one at the start of the update."""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 20.0
"""Log-ratios are clamped to this before exponentiation; beyond it a ratio says nothing."""


def clamped(log_ratios: Tensor) -> Tensor:
    return log_ratios.clamp(-LIMIT, LIMIT)


def token_ratio(logprobs_BT: Tensor, old_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """exp(log pi - log pi_old), each token its own (PPO, arXiv:1707.06347, eq. 6). Returns [B, T]."""
    return clamped((logprobs_BT - old_BT) * mask_BT).exp()


def sequence_ratio(logprobs_BT: Tensor, old_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The geometric mean of a sequence's token ratios, on each of its tokens (GSPO, arXiv:2507.18071, eq. 7 and GSPO-token, eq. 13).

    Straight-through: the value is the sequence's, the gradient of each token goes through its own log-probability. Returns [B, T].
    """
    log_ratio = (logprobs_BT - old_BT) * mask_BT
    sequence = log_ratio.sum(-1, keepdim=True) / mask_BT.sum(-1, keepdim=True).clamp_min(1)
    return clamped(((logprobs_BT - logprobs_BT.detach()) + sequence.detach()) * mask_BT).exp()


def sequence_product(logprobs_BT: Tensor, old_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The product of a sequence's token ratios, on each of its tokens (RLOO, arXiv:2402.14740). Returns [B, T].

    With the `seq_mean_token_mean` aggregation every sequence then has one loss, and the batch their mean.
    """
    total = ((logprobs_BT - old_BT) * mask_BT).sum(-1, keepdim=True)
    return clamped(total).exp().expand_as(logprobs_BT)


def behaviour_ratio(old_BT: Tensor, behaviour_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """exp(log pi_old - log mu) per token: how far the sampler was from the policy at the start of the update. Returns [B, T]."""
    return clamped((old_BT - behaviour_BT) * mask_BT).exp()


def truncated_weight(ratio_BT: Tensor, *, cap: float) -> Tensor:
    """min(rho, cap) per token (truncated importance sampling)."""
    return ratio_BT.clamp(max=cap).detach()


def masked_weight(ratio_BT: Tensor, *, low: float, high: float) -> Tensor:
    """rho where it lies in [low, high], else 0, per token (IcePop)."""
    return (ratio_BT * ((ratio_BT >= low) & (ratio_BT <= high))).detach()


def sequence_weight(ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The product of a sequence's behaviour ratios, on each of its tokens; truncate or mask it with the functions above. Returns [B, T]."""
    logs = torch.where(mask_BT > 0, ratio_BT.clamp_min(1e-30).log(), 0.0)
    return clamped(logs.sum(-1, keepdim=True)).exp().expand_as(ratio_BT)
