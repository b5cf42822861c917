"""The test of order on worked numbers, and on sequences whose order is known."""

from __future__ import annotations

import math

import pytest
import torch

from etude.evals.token_order import entropies_by_place, order_correlation, psnr, rates, strided


def test_strides_take_every_place_once() -> None:
    assert strided(7, 1) == [[0, 1, 2, 3, 4, 5, 6]]
    assert strided(7, 3) == [[0, 3, 6], [1, 4], [2, 5]]


def test_correlation_is_within_parts() -> None:
    assert order_correlation([4.0, 3.0, 2.0, 1.0], 1) == pytest.approx(-1)
    # Falls within both parts of a stride of two, though not along the whole.
    assert order_correlation([4.0, 1.0, 3.0, 0.0], 2) == pytest.approx(-1)
    assert order_correlation([4.0, 3.0, 2.0, 1.0, 1.0, 1.0], 2) == pytest.approx(-0.5)
    # Ranks 1, 3, 2 against 1, 2, 3: 1 - 6 (0 + 1 + 1) / (3 * 8).
    assert order_correlation([0.0, 2.0, 1.0], 1) == pytest.approx(0.5)


def test_decibels_and_rates() -> None:
    assert psnr(torch.zeros(2, 3), torch.full((2, 3), 0.2)) == pytest.approx(20.0)
    assert rates(16) == [1, 2, 4, 8, 16]
    assert rates(12) == [1, 2, 4, 8, 12]


def test_what_follows_from_the_token_before_is_not_surprising() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(4, (512, 1), generator=generator)
    free = torch.randint(4, (512, 1), generator=generator)
    tokens = torch.cat([first, (first + 1) % 4, free], dim=1)
    found = entropies_by_place(tokens[:384], tokens[384:], 4, seed=0, steps=40, batch=64, width=16, layers=1, lr=2e-2)
    assert found[0] == pytest.approx(math.log(4), abs=0.15)
    assert found[1] < 0.5
    assert found[2] == pytest.approx(math.log(4), abs=0.15)
