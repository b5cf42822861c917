"""The diversity bonus, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from etude.advantages import diversity_weights, weighted_by_diversity
from etude.memory.exemplars import hashed


def test_weights_are_distances_to_the_middle_between_the_nearest_and_the_farthest() -> None:
    # The middle is (1, 1); distances are sqrt 2, sqrt 2, 0 and 2.
    vectors = torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    assert diversity_weights(vectors).tolist() == pytest.approx([math.sqrt(2) / 2, math.sqrt(2) / 2, 0.0, 1.0])
    assert diversity_weights(torch.ones(3, 2)).tolist() == [1.0, 1.0, 1.0]
    assert diversity_weights(torch.tensor([[0.0], [1.0]])).tolist() == [1.0, 1.0]


def test_advantages_are_multiplied_or_the_positive_ones_alone() -> None:
    advantages, weights = torch.tensor([2.0, -1.0, 1.0]), torch.tensor([0.5, 0.25, 0.0])
    assert weighted_by_diversity(advantages, weights).tolist() == [1.0, -0.25, 0.0]
    assert weighted_by_diversity(advantages, weights, positive_only=True).tolist() == [1.0, -1.0, 0.0]


def test_features_are_hashed_to_a_vector_of_length_one() -> None:
    vector = hashed({"abc": 3.0, "bcd": 4.0}, size=64)
    assert sorted(vector)[-2:] == pytest.approx([0.6, 0.8])
    assert len(vector) == 64
    assert hashed({"abc": 3.0, "bcd": 4.0}, size=1) == [1.0]
    assert hashed({}, size=2) == [0.0, 0.0]
