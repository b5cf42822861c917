"""One-token episodes: gradients worked out by hand, the sampled form against the exact one, and the losses that are cases of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from etude.models.output_head import proposal_logprobs, token_logprobs
from etude.objectives import OneTokenObjective, TokenBatch, TokenLogits, look, token_weights
from etude.objectives.one_token import DEAD

P = (0.5, 0.3, 0.2)
"""A policy of three tokens."""


def logits_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log().requires_grad_()


def batch(logits_NV: Tensor, targets: list[int], step: int = 0) -> TokenBatch:
    """One trajectory whose tokens are the targets."""
    count = len(targets)
    targets_N = torch.tensor(targets)
    logprobs = token_logprobs(logits_NV, targets_N)[None]
    zeros = torch.zeros_like(logprobs).detach()
    mask = torch.ones_like(zeros)
    return TokenBatch(
        logprobs=logprobs,
        old_logprobs=logprobs.detach(),
        behaviour_logprobs=logprobs.detach(),
        advantages=zeros,
        mask=mask,
        weights=token_weights(torch.tensor([float(count)]), "seq_mean_token_mean")[:, None] * mask,
        unit=torch.zeros(1),
        units=1,
        tokens=count,
        logits=TokenLogits(logits_NV, targets_N, torch.zeros(count, dtype=torch.long), torch.arange(count)),
        names=[(step, 0, 0)],
    )


def ascent(rows: list[tuple[float, ...]], targets: list[int], *, step: int = 0, **options: Any) -> Tensor:
    """The direction in which the logits are pushed, times the number of positions."""
    logits = logits_of(*rows)
    total, _ = OneTokenObjective(**options)(batch(logits, targets, step))
    (gradient,) = torch.autograd.grad(total, logits)
    return -gradient * len(targets)


def statistics(rows: list[tuple[float, ...]], targets: list[int], **options: Any) -> dict[str, float]:
    _, found = OneTokenObjective(**options)(batch(logits_of(*rows), targets))
    return {name: float(total / count) for name, (total, count) in found.items()}


def close(actual: Tensor, expected: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)


def test_the_exact_gradient_by_hand() -> None:
    # Temperature 1/2 squares: q = (25, 9, 4) / 38. With x the second token and beta = -0.5: 1.5 q(x) (e_x - pi) - 0.5 (q - pi).
    q = [25 / 38, 9 / 38, 4 / 38]
    pull = 1.5 * q[1]
    expected = [pull * (float(a == 1) - P[a]) - 0.5 * (q[a] - P[a]) for a in range(3)]
    close(ascent([P], [1], temperature=0.5, miss_reward=-0.5), [expected])
    # Less the mean reward, R(a) - mean = 1.5 (1[a = x] - q(x)): 1.5 q(x) (e_x - q), whatever pi is.
    close(ascent([P], [1], temperature=0.5, miss_reward=-0.5, centred=True), [[pull * (float(a == 1) - q[a]) for a in range(3)]])


def test_at_temperature_1_beta_only_scales_and_the_loss_is_that_of_dft() -> None:
    rows, targets = [P, (0.1, 0.1, 0.8)], [1, 0]
    dft = ascent(rows, targets)
    close(dft, [[0.3 * -0.5, 0.3 * 0.7, 0.3 * -0.2], [0.1 * 0.9, 0.1 * -0.1, 0.1 * -0.8]])
    for beta in (-1.0, -0.1, 0.5):
        close(ascent(rows, targets, miss_reward=beta), (1 - beta) * dft)
        close(ascent(rows, targets, miss_reward=beta, centred=True), (1 - beta) * dft)
    assert (ascent(rows, targets, miss_reward=-0.1, temperature=1.3) - 1.1 * dft).abs().max() > 1e-3


def test_a_floor_of_1_is_sft_and_a_small_one_only_helps_the_unlikely() -> None:
    rows, targets = [P, (0.001, 0.1, 0.899)], [0, 0]
    close(ascent(rows, targets, least_pull=1.0), [[0.5, -0.3, -0.2], [0.999, -0.1, -0.899]])
    close(ascent(rows, targets, least_pull=0.05), [[0.25, -0.15, -0.1], [0.05 * 0.999, -0.005, 0.05 * -0.899]])
    # The likely token is drawn more often than one time in twenty: nothing is added. The other's drawn part and what it lacks are 0.05 together.
    drawn = ascent(rows, targets, least_pull=0.05, draws=100)
    close(drawn[0], ascent(rows, targets, draws=100)[0])
    close(drawn[1], [0.05 * 0.999, -0.005, 0.05 * -0.899])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("temperature", "beta"), [(1.0, -0.1), (1.3, -0.1), (1.3, 0.5), (0.7, -1.0)])
def test_the_mean_of_sampled_gradients_is_the_exact_one(temperature: float, beta: float, centred: bool) -> None:
    rows, targets = [P, (0.1, 0.1, 0.8)], [1, 0]
    options: dict[str, Any] = {"temperature": temperature, "miss_reward": beta, "centred": centred}
    exact = ascent(rows, targets, **options)
    sampled = torch.stack([ascent(rows, targets, step=step, draws=16, seed=7, **options) for step in range(2000)])
    mean = sampled.mean(0)
    assert float((mean - exact).norm() / exact.norm()) < 0.05
    # Not because they are all alike.
    assert float(sampled.std(0).max()) > 0.01


def test_draws_belong_to_the_place_and_the_step() -> None:
    rows, targets = [P] * 6, [0] * 6
    first = ascent(rows, targets, draws=4, seed=1)
    close(ascent(rows, targets, draws=4, seed=1), first, 0)
    close(ascent(rows[:3], targets[:3], draws=4, seed=1), first[:3], 1e-12)
    for other in (ascent(rows, targets, draws=4, seed=2), ascent(rows, targets, draws=4, seed=1, step=1)):
        assert not torch.equal(other, first)
    assert len({tuple(row.tolist()) for row in first}) > 1


def test_a_token_that_is_never_drawn_is_not_learnt() -> None:
    # One in a million: SFT's gradient is full size, this one's nothing (no miss reward) or a sharpening of what is believed (with one).
    rows, targets = [(1e-6, 0.3, 0.699999)], [0]
    assert ascent(rows, targets, draws=64).abs().max() == 0
    sharpening = ascent(rows, targets, temperature=1.3, miss_reward=-0.5)[0]
    assert sharpening[2] > 0 > sharpening[1]
    assert abs(sharpening[0]) < 1e-3
    assert ascent(rows, targets, least_pull=1.0)[0, 0] > 0.99


def test_drawing_from_the_whole_vocabulary_alike() -> None:
    # q is 1/3 each: (1 - beta)/3 (e_x - pi) + beta (1/3 - pi).
    expected = [1.5 / 3 * (float(a == 2) - P[a]) - 0.5 * (1 / 3 - P[a]) for a in range(3)]
    close(ascent([P], [2], temperature=1e9, miss_reward=-0.5), [expected], 1e-6)


def test_what_is_measured() -> None:
    rows, targets = [P, (0.004, 0.496, 0.5)], [1, 0]
    found = statistics(rows, targets, miss_reward=-0.5)
    assert found["nll"] == pytest.approx(-(math.log(0.3) + math.log(0.004)) / 2)
    assert found["hit_rate"] == pytest.approx((0.3 + 0.004) / 2)
    assert found["weight"] == pytest.approx(1.5 * (0.3 + 0.004) / 2)
    assert DEAD > 1.5 * 0.004
    assert found["dead"] == 0.5
    assert found["entropy"] == pytest.approx(-sum(p * math.log(p) for row in rows for p in row) / 2)
    assert found["miss_share"] == 0
    # Temperature 1/2: lengths of 1.5 q(x) (e_x - pi) and of 0.5 (q - pi).
    q = torch.tensor([25.0, 9, 4], dtype=torch.float64) / 38
    pi = torch.tensor(P, dtype=torch.float64)
    pull, drift = float(1.5 * q[1] * (torch.eye(3)[1] - pi).norm()), float(0.5 * (q - pi).norm())
    assert statistics([P], [1], temperature=0.5, miss_reward=-0.5)["miss_share"] == pytest.approx(drift / (pull + drift))


def test_draws_follow_the_proposals() -> None:
    # One number in each 4000th of [0, 1): the shares of the draws are the probabilities at temperature 1/2.
    uniforms = (torch.arange(4000, dtype=torch.float64)[None] + 0.5) / 4000
    drawn = look(logits_of(P), torch.tensor([1]), temperature=0.5, uniforms_NK=uniforms).drawn_NK
    assert drawn is not None
    assert drawn[0].bincount(minlength=3).tolist() == pytest.approx([4000 * 25 / 38, 4000 * 9 / 38, 4000 * 4 / 38], abs=1)


class TestHeads:
    def test_several_tokens_of_a_row(self) -> None:
        generator = torch.Generator().manual_seed(3)
        logits = (4 * torch.randn(5, 7, generator=generator, dtype=torch.float64)).requires_grad_()
        tokens = torch.randint(0, 7, (5, 4), generator=generator)
        tokens[0] = 2  # the same token several times
        torch.testing.assert_close(token_logprobs(logits, tokens), logits.log_softmax(-1).gather(1, tokens), atol=1e-12, rtol=0)
        assert torch.autograd.gradcheck(lambda x: token_logprobs(x, tokens), (logits,))

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
    def test_mean_over_proposals(self, temperature: float) -> None:
        generator = torch.Generator().manual_seed(4)
        own = (4 * torch.randn(5, 7, generator=generator, dtype=torch.float64)).requires_grad_()
        other = own.detach().clone().requires_grad_()
        upstream = torch.randn(5, generator=generator, dtype=torch.float64)
        value = proposal_logprobs(own, temperature)
        expected = ((other / temperature).softmax(-1).detach() * other.log_softmax(-1)).sum(-1)
        torch.testing.assert_close(value, expected, atol=1e-12, rtol=0)
        value.backward(upstream)
        expected.backward(upstream)
        torch.testing.assert_close(own.grad, other.grad, atol=1e-12, rtol=0)
