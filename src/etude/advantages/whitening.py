"""Advantages that compare across the whole batch: REINFORCE++ (arXiv:2501.03262) and its relatives."""

from __future__ import annotations

import torch
from torch import Tensor

from etude.errors import InputError


def returns_to_go(rewards_T: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Discounted sum of the rewards from each token on: G_t = r_t + gamma G_{t+1}. Returns [T]."""
    result = torch.zeros_like(rewards_T)
    running = rewards_T.new_zeros(())
    for t in range(len(rewards_T) - 1, -1, -1):
        running = rewards_T[t] + gamma * running
        result[t] = running
    return result


def rewards_with_kl(outcome: float, kl_T: Tensor, *, beta: float) -> Tensor:
    """Per-token rewards with the divergence inside: -beta k1_t everywhere, and the outcome on the last token (REINFORCE++, eq. 4). Returns [T]."""
    rewards = -beta * kl_T
    rewards[-1] += outcome
    return rewards


def whiten(values_N: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Zero mean and unit (unbiased) variance over all values: (x - mean) / sqrt(var + eps). A single value gives 0. Returns [N].

    Raises InputError for a value that is not finite, which would spread to all others.
    """
    if not bool(torch.isfinite(values_N).all()):
        raise InputError("a value to whiten is not finite; expected finite returns or advantages, without those of unjudged attempts")
    if len(values_N) < 2:
        return torch.zeros_like(values_N)
    return (values_N - values_N.mean()) * torch.rsqrt(values_N.var() + eps)
