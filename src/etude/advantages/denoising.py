"""Credit on the edges of a tree of pictures: what came of an edge, against the other edges of its depth in the same tree (BranchGRPO, arXiv:2509.06040)."""

from __future__ import annotations

from collections.abc import Sequence

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


def depth_normalised(values: Sequence[Tensor], groups: int, *, most: float = 5.0) -> list[Tensor]:
    """For each depth the advantages of its nodes [N], which are those of the edges that lead to them: the value minus the mean, over the standard deviation, of the nodes of
    that depth in the same group (a tree, or all walks of one caption); 0 where there is one node or no spread. Clipped to [-most, most]."""
    return [_normalised(of_depth.reshape(groups, -1), most).flatten() for of_depth in values]


def leaf_normalised(forest: Forest, rewards: Tensor, groups: int, *, most: float = 5.0) -> list[Tensor]:
    """The same credit without depths: each leaf's reward [leaves] against the other leaves of its group, and for a node above the mean of its leaves'."""
    leaves = _normalised(rewards.reshape(groups, -1), most)
    return [leaves.reshape(len(level.pictures), -1).mean(1) for level in forest.levels]


def _normalised(rows: Tensor, most: float) -> Tensor:
    if rows.shape[1] == 1:
        return torch.zeros_like(rows)
    spread = rows.std(1, keepdim=True)
    scaled = (rows - rows.mean(1, keepdim=True)) / (spread + 1e-8)
    return torch.where(spread < SMALLEST_SPREAD, 0.0, scaled).clamp(-most, most)


# Which edges are trained


def all_kept(forest: Forest) -> list[Tensor]:
    """Every node, for each depth [N]."""
    return [torch.ones(len(level.pictures), dtype=torch.bool) for level in forest.levels]


def better_children(forest: Forest, values: Sequence[Tensor]) -> list[Tensor]:
    """All nodes up to the children of the last split, and behind them only those below the better of each parent's."""
    kept = all_kept(forest)
    if not forest.plan.splits:
        return kept
    first = max(forest.plan.splits) + 1
    siblings = values[first].reshape(-1, forest.plan.children)
    best = torch.zeros_like(siblings, dtype=torch.bool).scatter(1, siblings.argmax(1, keepdim=True), True).flatten()
    for depth in range(first + 1, len(kept)):
        kept[depth] = best.repeat_interleave(len(kept[depth]) // len(best))
    return kept


def extreme_leaves(forest: Forest, rewards: Tensor, share: float = 0.5) -> list[Tensor]:
    """All nodes up to the children of the last split, and behind them only those that lead to the best and the worst leaves of their tree, `share` of its leaves in all."""
    kept = all_kept(forest)
    if not forest.plan.splits:
        return kept
    rows = rewards.reshape(len(forest.captions), -1)
    each = max(1, round(share * rows.shape[1] / 2))
    order = rows.argsort(1)
    chosen = torch.zeros_like(rows, dtype=torch.bool).scatter(1, torch.cat([order[:, :each], order[:, -each:]], dim=1), True).flatten()
    for depth in range(max(forest.plan.splits) + 2, len(kept)):
        kept[depth] = chosen.reshape(len(kept[depth]), -1).any(1)
    return kept
