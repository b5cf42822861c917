"""Credit on the edges of a tree of pictures: what came of an edge, against the other edges of its depth in the same tree (BranchGRPO, arXiv:2509.06040)."""

from __future__ import annotations

import torch
from torch import Tensor

from etude.rollouts.denoising import Forest

SMALLEST_SPREAD = 1e-6


def fused_values(forest: Forest, rewards: Tensor, *, temperature: float = 0.0) -> list[Tensor]:
    """For each depth the value of its nodes [N]: the weighted mean of the rewards [leaves] below.

    Weights are the softmax over a node's leaves of temperature times the log-probability of the way from it to the leaf, as it was sampled (0: a plain mean).
    """
    deepest = len(forest.levels) - 1
    way = torch.zeros(len(rewards))
    values = [rewards]
    for depth in range(deepest - 1, -1, -1):
        edges = forest.levels[depth + 1].logprobs.nan_to_num(0.0)
        way = way + edges[forest.leaves_of(depth + 1)]
        # A node's leaves lie side by side, as many for each.
        count = len(forest.levels[depth].pictures)
        weights = (temperature * way).reshape(count, -1).softmax(1)
        values.insert(0, (weights * rewards.reshape(count, -1)).sum(1))
    return values


def depth_normalised(forest: Forest, values: list[Tensor], *, most: float = 5.0) -> list[Tensor]:
    """For each depth the advantages of its nodes [N], which are those of the edges that lead to them: the value minus the mean, over the standard deviation, of the nodes of
    that depth in the same tree; 0 where there is one node or no spread. Clipped to [-most, most]."""
    trees = len(forest.captions)
    found = []
    for of_depth in values:
        rows = of_depth.reshape(trees, -1)
        if rows.shape[1] == 1:
            found.append(torch.zeros_like(of_depth))
            continue
        spread = rows.std(1, keepdim=True)
        scaled = (rows - rows.mean(1, keepdim=True)) / (spread + 1e-8)
        found.append(torch.where(spread < SMALLEST_SPREAD, 0.0, scaled).clamp(-most, most).flatten())
    return found


def leaf_normalised(forest: Forest, rewards: Tensor, *, most: float = 5.0) -> list[Tensor]:
    """The same credit without depths: each leaf's reward against the other leaves of its tree, and for a node above the mean of its leaves'."""
    rows = rewards.reshape(len(forest.captions), -1)
    spread = rows.std(1, keepdim=True)
    leaves = torch.where(spread < SMALLEST_SPREAD, 0.0, (rows - rows.mean(1, keepdim=True)) / (spread + 1e-8)).clamp(-most, most).flatten()
    return [leaves.reshape(len(level.pictures), -1).mean(1) for level in forest.levels]
