"""Surrogate losses per token, to minimise. Ratios and advantages have the same shape, which is returned."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(ratio: Tensor, advantages: Tensor, *, low: float, high: float) -> Tensor:
    """max(-A r, -A clip(r, 1 - low, 1 + high)) (PPO, arXiv:1707.06347, eq. 7; low != high is DAPO's clip-higher, arXiv:2503.14476, eq. 10)."""
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high))


def dual_clipped(loss: Tensor, advantages: Tensor, *, bound: float) -> Tensor:
    """Bound the loss of bad tokens whose ratio grew large: min(loss, -bound A) where A < 0 (dual-clip PPO, arXiv:1912.09729, eq. 5)."""
    return torch.where(advantages < 0, torch.minimum(loss, -bound * advantages), loss)


def clipped_weight_surrogate(ratio: Tensor, advantages: Tensor, logprobs: Tensor, *, low: float, high: float) -> Tensor:
    """-sg[clip(r)] A log pi: the ratio only weighs, so no token's gradient vanishes (CISPO, arXiv:2506.13585, eq. 4)."""
    return -ratio.clamp(1 - low, 1 + high).detach() * advantages * logprobs
