"""Advantages that trust certain attempts more than uncertain ones (ETTRL, arXiv:2508.11356, entropy-based advantage reshaping)."""

from __future__ import annotations

import torch
from torch import Tensor

from etude.errors import InputError


def entropy_weights(entropies_G: Tensor) -> Tensor:
    """What to multiply each attempt's advantage by: 2 minus its mean entropy over the group's, cut to [0, 2] (Adv-Res).

    entropies_G: [G] mean entropy of each attempt's tokens, in nats. An attempt as certain as the others keeps its advantage, a surer one gets up to twice of it
    whatever its sign, one that is twice as uncertain none. Without the cut, which is ours, more than twice would turn the sign. All ones where nothing is
    uncertain (a mean below 1e-6). Returns [G].
    """
    if not bool((torch.isfinite(entropies_G) & (entropies_G > -1e-6)).all()):
        raise InputError("an entropy is negative or not finite; expected the mean entropies of a group's attempts")
    average = entropies_G.mean()
    if len(entropies_G) == 0 or float(average) < 1e-6:
        return torch.ones_like(entropies_G)
    return (2 - entropies_G / average).clamp(0, 2)


def bounded(advantages: Tensor, *, bound: float) -> Tensor:
    """Advantages cut to [-bound, bound] (Adv-Clip; the paper's bound is 2): a lone hit among many misses is not believed that much. Same shape."""
    if not bound > 0:
        raise InputError(f"the bound on advantages is {bound}; expected more than 0")
    return advantages.clamp(-bound, bound)
