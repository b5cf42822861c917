"""Credit for attempts that differ from the others of their group (ExIt, arXiv:2509.04575, the diversity bonus)."""

from __future__ import annotations

import torch
from torch import Tensor


def diversity_weights(vectors_GD: Tensor) -> Tensor:
    """How far each attempt lies from the middle of its group: Euclidean distances to the centroid, stretched so that the nearest has 0 and the farthest 1.

    vectors_GD: [G, D] one row an attempt. All ones where all lie equally far. Returns [G].
    """
    distances = (vectors_GD - vectors_GD.mean(dim=0)).norm(dim=1)
    low, high = distances.min(), distances.max()
    if float(high - low) <= 1e-9:
        return torch.ones_like(distances)
    return (distances - low) / (high - low)


def weighted_by_diversity(advantages_G: Tensor, weights_G: Tensor, *, positive_only: bool = False) -> Tensor:
    """Advantages times weights: successes count for more that differ from what the others did.

    So do failures, and the attempt nearest the middle has no gradient at all; positive_only leaves negative advantages as they are. Returns [G].
    """
    weighted = advantages_G * weights_G
    return torch.where(advantages_G < 0, advantages_G, weighted) if positive_only else weighted
