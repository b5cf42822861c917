"""Advantages of tokens whose reward comes in parts: a penalty at each token, and the score at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def group_relative_returns(returns: Sequence[Tensor], scores_G: Tensor, *, scale: bool = True, eps: float = 1e-6) -> list[Tensor]:
    """Each token's return minus the group's mean return of whole attempts, over the (unbiased) standard deviation of the scores.

    returns: for each of G attempts [T_i], the reward from each token to the end, score included. scores_G: the scores alone, so that penalties which differ by a
    hair in a group of equal scores are not blown up. scale=False leaves the division out. All zeros where fewer than two attempts or no two scores differ: GRPO's
    rule, which with returns that are the score at every token is what this is. Returns one [T_i] an attempt.
    """
    if len(scores_G) < 2 or float(scores_G.max() - scores_G.min()) <= 1e-9:
        return [torch.zeros_like(values) for values in returns]
    baseline = torch.stack([values[0] if len(values) else score for values, score in zip(returns, scores_G, strict=True)]).mean()
    width = scores_G.std() + eps if scale else torch.ones_like(baseline)
    return [(values - baseline) / width for values in returns]
