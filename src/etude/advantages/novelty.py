"""Credit for right answers that the policy found unlikely."""

from __future__ import annotations

import torch
from torch import Tensor


def sharpened_by_novelty(advantages_G: Tensor, logprobs_G: Tensor, *, weight: float = 2.5, cap: float = 0.5) -> Tensor:
    """Positive advantages raised where an attempt was less likely than its group usually is (XRPO, arXiv:2510.06672, section 4).

    logprobs_G: mean log-probability a token of each attempt under the policy that sampled it; NaN leaves an attempt out of the group's mean and unraised.
    With eta = exp(own - group's mean), a positive advantage A becomes A + min(max(weight (1 - eta), 0), cap A). Others stay. Returns [G].
    """
    known = ~logprobs_G.isnan()
    if not bool(known.any()):
        return advantages_G.clone()
    eta = (logprobs_G - logprobs_G[known].mean()).exp()
    bonus = torch.minimum((weight * (1 - eta)).clamp_min(0), cap * advantages_G)
    return torch.where((advantages_G > 0) & known, advantages_G + bonus, advantages_G)
