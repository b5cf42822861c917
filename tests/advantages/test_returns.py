"""Advantages of returns that differ from token to token, by hand."""

from __future__ import annotations

import pytest
import torch

from etude.advantages import group_normalised, group_relative_returns


def test_without_penalties_it_is_grpo() -> None:
    scores = torch.tensor([1.0, -0.5, -0.5, -1.0], dtype=torch.float64)
    returns = [torch.full((length,), float(score), dtype=torch.float64) for length, score in zip((2, 1, 3, 2), scores, strict=True)]
    advantages = group_relative_returns(returns, scores)
    for values, expected in zip(advantages, group_normalised(scores).tolist(), strict=True):
        assert values.tolist() == pytest.approx([expected] * len(values))


def test_penalties_fall_due_token_by_token() -> None:
    # Scores 1 and 0 (deviation sqrt(1/2)); the first attempt pays 0.2 at its second token. Whole returns 0.8 and 0: mean 0.4.
    returns = [torch.tensor([0.8, 0.8, 1.0]), torch.tensor([0.0])]
    advantages = group_relative_returns(returns, torch.tensor([1.0, 0.0]), scale=False)
    assert [v.tolist() for v in advantages] == [pytest.approx([0.4, 0.4, 0.6]), pytest.approx([-0.4])]
    scaled = group_relative_returns(returns, torch.tensor([1.0, 0.0]))
    assert scaled[1].tolist() == pytest.approx([-0.4 * 2**0.5], abs=1e-5)


def test_a_group_of_equal_scores_teaches_nothing_however_the_penalties_differ() -> None:
    returns = [torch.tensor([0.99, 1.0]), torch.tensor([0.7])]
    assert [v.tolist() for v in group_relative_returns(returns, torch.tensor([1.0, 1.0]))] == [[0.0, 0.0], [0.0]]
    assert group_relative_returns([torch.tensor([3.0])], torch.tensor([1.0]))[0].tolist() == [0.0]
