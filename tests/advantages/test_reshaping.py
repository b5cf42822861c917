"""Advantages weighed by entropy, with numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from etude.advantages.reshaping import bounded, entropy_weights
from etude.errors import InputError


def test_certain_attempts_count_more() -> None:
    weights = entropy_weights(torch.tensor([0.5, 1.0, 1.5]))
    assert weights.tolist() == pytest.approx([1.5, 1.0, 0.5])
    advantages = torch.tensor([1.1547, -0.5774, -0.5774])
    assert (weights * advantages).tolist() == pytest.approx([1.7321, -0.5774, -0.2887], abs=1e-4)


def test_no_weight_turns_the_sign() -> None:
    # The mean is 1: the last is four times as uncertain, which unbounded would be -2.
    assert entropy_weights(torch.tensor([0.0, 0.0, 0.0, 4.0])).tolist() == [2, 2, 2, 0]


def test_where_nothing_is_uncertain_nothing_changes() -> None:
    assert entropy_weights(torch.tensor([0.0, 1e-8])).tolist() == [1, 1]
    assert entropy_weights(torch.tensor([])).tolist() == []


@pytest.mark.parametrize("bad", [float("nan"), -1.0, float("inf")])
def test_what_is_no_entropy_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="negative or not finite"):
        entropy_weights(torch.tensor([0.5, bad]))


def test_bounded() -> None:
    assert bounded(torch.tensor([3.9, -2.5, 1.0]), bound=2.0).tolist() == [2.0, -2.0, 1.0]
    with pytest.raises(InputError, match="bound on advantages is 0"):
        bounded(torch.tensor([1.0]), bound=0)
