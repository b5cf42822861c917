"""Trees of pictures: how they grow, what they cost, the law of their noise, and the credit of their edges by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from etude.advantages.denoising import all_kept, better_children, depth_normalised, extreme_leaves, fused_values, leaf_normalised
from etude.errors import InputError
from etude.models.flow import time_grid
from etude.rollouts.denoising import Forest, Level, SplitNoise, TreePlan, edges_of, grow_forest, late_steps


def plan(steps: int = 10, splits: tuple[int, ...] = (0, 2, 4, 6), **more: Any) -> TreePlan:
    return TreePlan(time_grid(steps).tolist(), frozenset(splits), **more)


def still(pictures: Tensor, now: Tensor, captions: Tensor) -> Tensor:
    return torch.zeros_like(pictures)


def roots(count: int = 2, side: int = 4) -> tuple[Tensor, Tensor]:
    return torch.arange(count * 4).reshape(count, 4), torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_a_tree_shares_its_beginning_and_counts_what_it_costs() -> None:
    ten = plan()
    assert ten.widths() == [1, 2, 2, 4, 4, 8, 8, 16, 16, 16, 16]
    assert (sum(ten.widths()), ten.calls, ten.leaves) == (93, 77, 16)
    paper = plan(20, (0, 3, 6, 9))
    assert sum(paper.widths()) / paper.leaves == pytest.approx(13.69, abs=0.01)
    assert plan(10, ()).calls == 10


def test_trees_grow_side_by_side_and_know_their_parents() -> None:
    captions, noise = roots()
    forest = grow_forest(still, captions, noise, plan(4, (0, 2)), torch.Generator().manual_seed(1))
    assert [len(level.pictures) for level in forest.levels] == [2, 4, 4, 8, 8]
    assert forest.levels[3].parents.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert forest.leaves_of(0).tolist() == [0] * 4 + [1] * 4
    assert forest.leaves_of(1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(forest.of_nodes(captions, 1), captions[[0, 0, 1, 1]])
    # What is drawn is the last step's estimate without noise: where nothing moves, the place it was at.
    torch.testing.assert_close(forest.drawn, forest.levels[3].pictures)


def test_probabilities_of_edges_are_those_that_they_were_sampled_with() -> None:
    captions, noise = roots()

    def velocity(pictures: Tensor, now: Tensor, captions: Tensor) -> Tensor:
        return pictures * now[:, None, None, None] + captions[:, 0, None, None, None]

    forest = grow_forest(velocity, captions, noise, plan(4, (1,), noisy=frozenset({1, 2})), torch.Generator().manual_seed(1))
    edges = edges_of(forest, [level.logprobs * 2 for level in forest.levels], all_kept(forest))
    # Two trees of two children each, after a step without noise; the last step has none either.
    assert len(edges) == 8
    torch.testing.assert_close(edges.logprobs_under(velocity, 0.5), edges.logprobs)
    torch.testing.assert_close(edges.advantages, 2 * edges.logprobs)
    assert forest.levels[1].logprobs.isnan().all()
    assert (edges.logprobs_under(still, 0.5) - edges.logprobs).abs().min() > 1e-3
    some = edges[torch.tensor([5, 0])]
    torch.testing.assert_close(some.logprobs, edges.logprobs[[5, 0]])
    assert some.now.tolist() == [0.5, 0.75]


@pytest.mark.parametrize(("kind", "variance", "covariance"), [("correlated", 1.0, 1 / 17), ("scaled", 16.0, 0.0)])
def test_siblings_have_the_law_of_plain_noise_and_share_a_part_of_it(kind: SplitNoise, variance: float, covariance: float) -> None:
    noise = torch.zeros(1, 3, 100, 100)
    one = TreePlan((1.0, 0.5, 0.0), frozenset({0}), eta=2.0, spread=4.0, split_noise=kind)
    forest = grow_forest(still, torch.zeros(1, 4, dtype=torch.long), noise, one, torch.Generator().manual_seed(0))
    first, second = forest.levels[1].pictures.flatten(1) / (2.0 * math.sqrt(0.5))
    assert first.var().item() == pytest.approx(variance, rel=0.03)
    assert (first * second).mean().item() == pytest.approx(covariance, abs=0.03 * variance)


def hand_made() -> tuple[Forest, Tensor]:
    """A root with children A and B, of which A has the leaves 1 and 2, B 3 and 4; edges to the leaves have log-probabilities 0, log 3, 0, 0."""
    empty = torch.zeros(1)
    levels = [
        Level(torch.zeros(1, 1), torch.tensor([-1]), torch.tensor([torch.nan])),
        Level(torch.zeros(2, 1), torch.tensor([0, 0]), torch.tensor([0.0, 0.0])),
        Level(torch.zeros(4, 1), torch.tensor([0, 0, 1, 1]), torch.tensor([0.0, math.log(3), 0.0, 0.0])),
    ]
    return Forest(plan(2, (0,)), torch.zeros(1, 4), levels, [empty, empty]), torch.tensor([1.0, 5.0, 2.0, 4.0])


def test_values_are_means_of_the_rewards_below_weighted_by_how_likely_the_way_was() -> None:
    forest, rewards = hand_made()
    plain = fused_values(forest, rewards)
    assert [v.tolist() for v in plain] == [[3.0], [3.0, 3.0], [1.0, 5.0, 2.0, 4.0]]
    weighted = fused_values(forest, rewards, temperature=1.0)
    # A: (1 + 3 * 5) / 4; the root: (1 + 3 * 5 + 2 + 4) / 6.
    assert weighted[1].tolist() == pytest.approx([4.0, 3.0])
    assert weighted[0].tolist() == pytest.approx([22 / 6])


def test_advantages_are_relative_to_a_depth() -> None:
    forest, rewards = hand_made()
    weighted = depth_normalised(fused_values(forest, rewards, temperature=1.0), 1)
    assert weighted[0].tolist() == [0.0]
    assert weighted[1].tolist() == pytest.approx([0.7071, -0.7071], abs=1e-4)
    # Mean 3, standard deviation sqrt(10 / 3).
    assert weighted[2].tolist() == pytest.approx([-1.0954, 1.0954, -0.5477, 0.5477], abs=1e-4)
    assert depth_normalised(fused_values(forest, rewards), 1)[1].tolist() == [0.0, 0.0]
    assert depth_normalised(fused_values(forest, rewards), 1, most=1.0)[2].tolist() == pytest.approx([-1, 1, -0.5477, 0.5477], abs=1e-4)


def test_the_credit_without_depths_is_the_mean_of_the_leaves() -> None:
    forest, rewards = hand_made()
    credit = leaf_normalised(forest, rewards, 1)
    assert credit[2].tolist() == pytest.approx([-1.0954, 1.0954, -0.5477, 0.5477], abs=1e-4)
    assert credit[1].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_walks_of_one_caption_are_compared_with_each_other() -> None:
    # Two captions, of which each has two walks without splits.
    values = [torch.tensor([1.0, 3.0, 5.0, 5.0])]
    assert depth_normalised(values, 2)[0].tolist() == pytest.approx([-0.7071, 0.7071, 0, 0], abs=1e-4)


def test_pruning_keeps_the_better_child_or_the_extremes_behind_the_last_split() -> None:
    captions, noise = roots()
    forest = grow_forest(still, captions, noise, plan(4, (0, 1)), torch.Generator().manual_seed(1))
    rewards = torch.tensor([1.0, 2.0, 4.0, 3.0, 5.0, 5.0, 9.0, 7.0])
    kept = better_children(forest, fused_values(forest, rewards))
    assert [level.tolist() for level in kept[:3]] == [[True] * 2, [True] * 4, [True] * 8]
    assert kept[3].tolist() == kept[4].tolist() == [False, True, True, False, True, False, True, False]
    extremes = extreme_leaves(forest, rewards)
    assert extremes[3].tolist()[:4] == [True, False, True, False]
    assert sum(extremes[4].tolist()[4:]) == 2
    assert extremes[4][6]
    assert extremes[2].all()


def test_a_window_of_late_steps_moves_towards_the_noise_and_stops() -> None:
    assert [list(late_steps(10, 2, moved, 6)) for moved in (0, 1, 2, 3)] == [[8, 9], [7, 8], [6, 7], [6, 7]]


def test_plans_that_cannot_grow_are_refused() -> None:
    with pytest.raises(InputError, match="step 9 is no step of a walk of 4"):
        plan(4, (9,))
    with pytest.raises(InputError, match="split without noise"):
        plan(4, (0,), noisy=frozenset({1}))
    with pytest.raises(InputError, match="all children would draw the same picture"):
        plan(4, (3,))
    with pytest.raises(InputError, match="1 children"):
        plan(4, (0,), children=1)
