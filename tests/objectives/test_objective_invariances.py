"""What must not change a loss or its gradient: order, padding, cutting into micro-batches, and whatever stands at masked positions."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from etude.advantages import centred, group_normalised, leave_one_out
from etude.objectives import (
    Aggregation,
    PolicyObjective,
    SupervisedObjective,
    TokenBatch,
    clipped_weight_surrogate,
    k1,
    k2,
    k3,
    k3_plus,
    masked_weight,
    ppo_surrogate,
    sequence_product,
    sequence_ratio,
    sequence_weight,
    token_weights,
    truncated_weight,
)

SURROGATE = ppo_surrogate(0.2, 0.28)
OBJECTIVES = {
    "grpo": PolicyObjective(SURROGATE, aggregation="seq_mean_token_mean", divergence=k3, kl_coefficient=0.1),
    "dapo": PolicyObjective(SURROGATE, aggregation="token_mean", entropy_coefficient=0.1),
    "dr_grpo": PolicyObjective(SURROGATE, aggregation="dr_grpo", normal_length=7, divergence=k3_plus, kl_coefficient=0.1, entropy_coefficient=0.1),
    "gspo": PolicyObjective(SURROGATE, aggregation="seq_mean_token_mean", ratio=sequence_ratio),
    "rloo": PolicyObjective(SURROGATE, aggregation="seq_mean_token_mean", ratio=sequence_product),
    "rf++": PolicyObjective(SURROGATE, divergence=k2, kl_coefficient=0.1, correction=lambda rho, _mask: truncated_weight(rho, cap=1.1)),
    "icepop": PolicyObjective(SURROGATE, divergence=k1, kl_coefficient=0.1, correction=lambda rho, _mask: masked_weight(rho, low=0.7, high=1.3)),
    "sequence_mask": PolicyObjective(SURROGATE, correction=lambda rho, mask: masked_weight(sequence_weight(rho, mask), low=0.0, high=1.5)),
    "cispo": PolicyObjective(partial(clipped_weight_surrogate, low=0.2, high=0.28)),
    "supervised": SupervisedObjective(aggregation="seq_mean_token_sum"),
    "weighted": SupervisedObjective(weighted=True),
}
by_objective = pytest.mark.parametrize("name", OBJECTIVES)
PER_TOKEN = ("logprobs", "old_logprobs", "behaviour_logprobs", "advantages", "mask", "weights", "reference_logprobs", "entropies")


def sample(aggregation: Aggregation, normal_length: int, seed: int, trajectories: int = 5, width: int = 6) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(trajectories, width, generator=generator, dtype=torch.float64)

    mask = (torch.rand(trajectories, width, generator=generator) < 0.6).double()
    mask[0, 0] = 1.0
    logprobs = -1.5 + noise(0.4)
    weights = token_weights(mask.sum(-1), aggregation, normal_length)
    return TokenBatch(
        logprobs=logprobs.requires_grad_(),
        old_logprobs=logprobs.detach() + noise(0.2),
        behaviour_logprobs=logprobs.detach() + noise(0.2),
        advantages=noise(1.0),
        mask=mask,
        weights=weights[:, None] * mask,
        unit=torch.arange(trajectories),
        units=trajectories,
        tokens=int(mask.sum()),
        reference_logprobs=logprobs.detach() + noise(0.3),
        entropies=(1.0 + noise(0.2)).abs(),
    )


def changed(batch: TokenBatch, change: object) -> TokenBatch:
    """The same batch with `change` applied to every [B, T] array; log-probabilities become a leaf again."""
    values = {name: change(getattr(batch, name).detach()) for name in PER_TOKEN}  # type: ignore[operator]
    return replace(batch, **(values | {"logprobs": values["logprobs"].clone().requires_grad_()}))


def loss_and_gradient(name: str, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    total, _ = OBJECTIVES[name](batch)
    (gradient,) = torch.autograd.grad(total, batch.logprobs)
    return total.detach(), gradient


def batch_for(name: str, seed: int) -> TokenBatch:
    return sample(OBJECTIVES[name].aggregation, OBJECTIVES[name].normal_length, seed)


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-9, equal_nan=False)


def test_every_per_token_field_is_covered() -> None:
    assert {f.name for f in fields(TokenBatch)} == {*PER_TOKEN, "unit", "units", "tokens", "logits", "names"}


@by_objective
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), data=st.data())
def test_order_of_trajectories(name: str, seed: int, data: st.DataObject) -> None:
    batch = batch_for(name, seed)
    order = data.draw(st.permutations(range(5)))
    loss, gradient = loss_and_gradient(name, batch)
    other_loss, other_gradient = loss_and_gradient(name, changed(batch, lambda v: v[order]))
    same(other_loss, loss)
    same(other_gradient, gradient[order])


@by_objective
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_on_either_side(name: str, seed: int, left: int, right: int) -> None:
    batch = batch_for(name, seed)
    loss, gradient = loss_and_gradient(name, batch)
    padded = changed(batch, lambda v: torch.nn.functional.pad(v, (left, right)))
    other_loss, other_gradient = loss_and_gradient(name, padded)
    same(other_loss, loss)
    same(other_gradient[:, left : left + 6], gradient)
    assert float(other_gradient.abs().sum()) == pytest.approx(float(gradient.abs().sum()))


@by_objective
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), cuts=st.sets(st.integers(1, 4)))
def test_micro_batches_add_up(name: str, seed: int, cuts: set[int]) -> None:
    batch = batch_for(name, seed)
    loss, gradient = loss_and_gradient(name, batch)
    edges = [0, *sorted(cuts), 5]
    parts = [loss_and_gradient(name, changed(batch, lambda v, a=a, b=b: v[a:b])) for a, b in pairwise(edges)]
    same(torch.stack([p for p, _ in parts]).sum(), loss)
    same(torch.cat([g for _, g in parts]), gradient)


@by_objective
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), filler=st.floats(-50, 50))
def test_masked_positions_may_hold_anything(name: str, seed: int, filler: float) -> None:
    batch = batch_for(name, seed)
    hidden = batch.mask == 0
    loss, gradient = loss_and_gradient(name, batch)
    filled = changed(batch, lambda v: torch.where(hidden, filler, v))
    filled.mask, filled.weights = batch.mask, batch.weights
    other_loss, other_gradient = loss_and_gradient(name, filled)
    same(other_loss, loss)
    same(other_gradient, gradient)
    assert bool((gradient[hidden] == 0).all())


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo", "rloo", "rf++", "sequence_mask", "supervised"])
def test_statistics_add_up_too(name: str) -> None:
    batch = batch_for(name, 3)
    _, whole = OBJECTIVES[name](batch)
    parts = [OBJECTIVES[name](changed(batch, lambda v, i=i: v[i : i + 1]))[1] for i in range(5)]
    for statistic, (total, count) in whole.items():
        same(torch.stack([p[statistic][0] for p in parts]).sum(), total)
        assert float(count) == sum(float(p[statistic][1]) for p in parts) == float(batch.mask.sum())


@pytest.mark.parametrize("advantage", [group_normalised, centred, leave_one_out])
@pytest.mark.parametrize("name", ["dapo", "gspo", "rloo", "cispo"])
@settings(max_examples=10, deadline=None)
@given(rewards=st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=5, max_size=5), constant=st.integers(-20, 20).map(float))
def test_a_constant_added_to_the_rewards(name: str, advantage: object, rewards: list[float], constant: float) -> None:
    results = []
    for offset in (0.0, constant):
        batch = batch_for(name, 11)
        values = advantage(torch.tensor(rewards, dtype=torch.float64) + offset)  # type: ignore[operator]
        batch.advantages = values[:, None].expand_as(batch.mask)
        results.append(loss_and_gradient(name, batch))
    same(results[1][0], results[0][0])
    same(results[1][1], results[0][1])


@by_objective
def test_a_trajectory_without_advantage_is_silent_where_it_is_said_to_be(name: str) -> None:
    batch = batch_for(name, 5)
    batch.advantages = torch.zeros_like(batch.advantages)
    loss, gradient = loss_and_gradient(name, batch)
    silent = float(loss) == 0.0 and not bool(gradient.any())
    assert silent == OBJECTIVES[name].silent_without_advantage
    assert math.isfinite(float(loss))
