"""A codebook on worked numbers: what is nearest, how codes follow, when diversity is asked for, and who is put elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from etude.models.vector_quantiser import CosineQuantiser, diversity_loss, perplexities, reseeding_weights, shares

AXES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def quantiser(*, decay: float = 0.5) -> CosineQuantiser:
    made = CosineQuantiser(2, 2, decay=decay)
    made.codebook.copy_(AXES)
    made.get_buffer("sums").copy_(AXES / 2)
    made.get_buffer("used").copy_(torch.tensor([0.5, 0.5]))
    return made


def test_the_code_of_the_highest_cosine_is_found_whatever_the_length() -> None:
    found = quantiser()(torch.tensor([[[3.0, 4.0]], [[0.4, 0.3]]]))
    assert found.tokens.tolist() == [[1], [0]]
    # Both lie at a cosine of 0.8 from their codes: (0.6, 0.8) - (0, 1) has squares 0.36 and 0.04.
    assert float(found.commitment) == pytest.approx(0.2)
    assert torch.allclose(found.vectors[:, 0], AXES.flip(0))


def test_the_gradient_goes_straight_through() -> None:
    vectors = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    quantiser()(vectors).vectors[0, 0, 0].backward()
    # d(x / |x|) / dx at (3, 4): (y^2, -x y) / |x|^3.
    assert vectors.grad is not None
    assert vectors.grad[0, 0].tolist() == pytest.approx([16 / 125, -12 / 125])


def test_codes_follow_the_mean_of_what_they_stand_for() -> None:
    made = quantiser()
    made.follow(torch.tensor([[[0.8, 0.6]], [[1.0, 0.0]]]), torch.Generator())
    # sums: half of what was, (0.5, 0), and half of the batch's mean, (1.8, 0.6) / 2.
    expected = torch.tensor([0.25 + 0.45, 0.15])
    assert torch.allclose(made.codebook[0], expected / expected.norm())
    assert made.get_buffer("used").tolist() == pytest.approx([0.75, 0.25])


def test_a_code_without_use_becomes_a_vector_of_the_batch() -> None:
    made = quantiser(decay=0.1)
    made.follow(torch.tensor([[[0.8, 0.6]], [[0.8, 0.6]]]), torch.Generator().manual_seed(0))
    # The second code's use fell to 0.05, below a fifth of its share of a half.
    assert torch.allclose(made.codebook[1], torch.tensor([0.8, 0.6]))
    assert made.get_buffer("used")[1] == pytest.approx(0.1)


def test_diversity_is_minus_the_entropy_until_codes_are_used_alike() -> None:
    assert float(diversity_loss(torch.zeros(3, 2, 4))) == pytest.approx(-math.log(4))
    assert float(diversity_loss(torch.tensor([1.0, -1.0, -1.0, -1.0]).expand(3, 1, 4))) > -1e-6
    one, both = torch.tensor([[[0.8, 0.6]]]), torch.tensor([[[0.8, 0.6]], [[0.6, 0.8]]])
    # A perplexity of 1 is less than 0.6 of 2 codes, one of 2 is not.
    assert float(quantiser()(one).diversity) < 0
    assert float(quantiser()(both).diversity) == 0


def test_positions_with_few_codes_give_more_new_ones() -> None:
    used = shares(torch.tensor([[0, 0], [1, 0], [0, 0], [1, 0]]), 2)
    assert used.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert perplexities(used).tolist() == pytest.approx([2.0, 1.0])
    assert reseeding_weights(used).tolist() == pytest.approx([1 / 3, 2 / 3])


def test_positions_that_share_out_the_codes_are_not_diverse() -> None:
    # Of two positions, one always says the first of two codes and the other the second: together they use both alike, each uses but one.
    cosines = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]).expand(4, 2, 2)
    assert float(diversity_loss(cosines)) == pytest.approx(0, abs=1e-6)
    shared = cosines[:, :, :1].expand(4, 2, 2)
    assert float(diversity_loss(shared)) == pytest.approx(-math.log(2))
