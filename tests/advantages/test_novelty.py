"""Credit for unlikely right answers, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.advantages import group_normalised, sharpened_by_novelty


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_an_unlikely_right_answer_earns_half_as_much_again() -> None:
    # Mean of the log-probabilities -.55: eta is 1.284025, 1.051271, .704688, 1.051271. 2.5 (1 - .704688) = .738280 is cut to half of .5.
    plain = group_normalised(tensor(1, 1, 1, 0))
    assert plain.tolist() == pytest.approx([0.5, 0.5, 0.5, -1.5], abs=1e-5)
    sharp = sharpened_by_novelty(plain, tensor(-0.3, -0.5, -0.9, -0.5))
    assert sharp.tolist() == pytest.approx([0.5, 0.5, 0.75, -1.5], abs=1e-5)
    # A small weight does not reach the cap: .5 + .1 x .295312.
    assert sharpened_by_novelty(plain, tensor(-0.3, -0.5, -0.9, -0.5), weight=0.1)[2].item() == pytest.approx(0.5295312, abs=1e-5)
    assert sharpened_by_novelty(plain, tensor(-0.3, -0.5, -0.9, -0.5), cap=0.0).tolist() == plain.tolist()


def test_unlikely_wrong_answers_keep_theirs() -> None:
    plain = tensor(1.0, -1.0)
    assert sharpened_by_novelty(plain, tensor(-0.1, -5.0)).tolist() == [1.0, -1.0]


def test_attempts_without_log_probabilities_stay_out_of_the_mean() -> None:
    plain = tensor(0.5, 0.5, 0.0)
    assert sharpened_by_novelty(plain, tensor(-0.5, -0.5, math.nan)).tolist() == plain.tolist()
    assert sharpened_by_novelty(plain, tensor(math.nan, math.nan, math.nan)).tolist() == plain.tolist()


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-9, 0)), min_size=1, max_size=9))
def test_the_rise_is_bounded_and_only_for_positive_advantages(attempts: list[tuple[float, float]]) -> None:
    plain, logprobs = tensor(*(a for a, _ in attempts)), tensor(*(s for _, s in attempts))
    sharp = sharpened_by_novelty(plain, logprobs)
    average = logprobs.mean()
    for before, after, own in zip(plain, sharp, logprobs, strict=True):
        assert before <= after <= max(before, 1.5 * before) + 1e-12
        if before <= 0 or own >= average:
            assert after == before
