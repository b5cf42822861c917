"""Advantages from comparing attempts at the same task. One group at a time, of any size G.

Shared rules: a reward that is NaN could not be judged, stays out of the group's statistics and gets advantage 0; fewer than two judged rewards, or rewards that are
all equal, give zeros. An infinite reward has no place in a mean, and would make NaN of every advantage in its group: it is refused with InputError.
"""

from __future__ import annotations

import torch
from torch import Tensor

from etude.errors import InputError


def group_normalised(rewards_G: Tensor, *, eps: float = 1e-6, ddof: int = 1) -> Tensor:
    """Reward minus the group's mean, over the group's standard deviation (GRPO, arXiv:2402.03300).

    `ddof` 1 divides the variance by G - 1, 0 by G. Returns [G].
    """
    judged, values = _judged(rewards_G)
    if values is None:
        return torch.zeros_like(rewards_G)
    return _spread(rewards_G, judged, (values - values.mean()) / (values.std(correction=ddof) + eps))


def centred(rewards_G: Tensor) -> Tensor:
    """Reward minus the group's mean (Dr. GRPO, arXiv:2503.20783): nearly solved and nearly unsolved tasks are not blown up. Returns [G]."""
    judged, values = _judged(rewards_G)
    return torch.zeros_like(rewards_G) if values is None else _spread(rewards_G, judged, values - values.mean())


def leave_one_out(rewards_G: Tensor) -> Tensor:
    """Reward minus the mean of the others' (RLOO, arXiv:2402.14740, eq. 8): an unbiased baseline. Returns [G]."""
    judged, values = _judged(rewards_G)
    if values is None:
        return torch.zeros_like(rewards_G)
    return _spread(rewards_G, judged, (values - values.mean()) * len(values) / (len(values) - 1))


def batch_normalised(rewards: list[Tensor], *, eps: float = 1e-6) -> list[Tensor]:
    """Reward minus its group's mean, over the standard deviation of all rewards in the batch. One [G] tensor a group, in and out; no groups give none."""
    differences = [centred(r) for r in rewards]
    judged = [r[~r.isnan()] for r in rewards]
    if sum(map(len, judged)) < 2:
        return differences
    scale = torch.cat(judged).std() + eps
    return [d / scale for d in differences]


def _judged(rewards_G: Tensor) -> tuple[Tensor, Tensor | None]:
    """Which rewards are judged, and those, or None where they carry no signal."""
    if bool(rewards_G.isinf().any()):
        raise InputError(
            f"a reward is infinite ({', '.join(f'{r:g}' for r in rewards_G.tolist())}); expected finite numbers, or NaN for what could not be judged"
        )
    judged = ~rewards_G.isnan()
    values = rewards_G[judged]
    if len(values) < 2 or float(values.max() - values.min()) <= 1e-9:
        return judged, None
    return judged, values


def _spread(rewards_G: Tensor, judged: Tensor, values: Tensor) -> Tensor:
    return torch.zeros_like(rewards_G).masked_scatter(judged, values)
