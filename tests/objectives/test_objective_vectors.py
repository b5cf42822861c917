"""Losses and their gradients against numbers worked out by hand. Gradients are with respect to log pi unless said."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from etude.advantages import centred, group_normalised
from etude.objectives import (
    AdaptiveEntropy,
    Aggregation,
    PolicyObjective,
    PreferenceObjective,
    SupervisedObjective,
    TokenBatch,
    behaviour_ratio,
    clipped_surrogate,
    clipped_weight_surrogate,
    dpo_loss,
    dual_clipped,
    k1,
    k2,
    k3,
    k3_plus,
    masked_weight,
    ppo_surrogate,
    sequence_product,
    sequence_ratio,
    sequence_weight,
    summed_weights,
    token_ratio,
    token_weights,
    truncated_weight,
)

Estimator = Callable[[Tensor, Tensor], Tensor]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor | float, expected: Tensor | list[float] | float, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        torch.as_tensor(actual, dtype=torch.float64).detach(), torch.as_tensor(expected, dtype=torch.float64), atol=tolerance, rtol=0, equal_nan=False
    )


def batch(
    logprobs: Tensor,
    lengths: list[int],
    advantages: Tensor | float = 1.0,
    *,
    aggregation: Aggregation = "token_mean",
    normal_length: int = 0,
    old: Tensor | None = None,
    behaviour: Tensor | None = None,
    reference: Tensor | None = None,
    entropies: Tensor | None = None,
) -> TokenBatch:
    """The whole optimiser batch as one micro-batch: [B, T] log-probabilities of which row i has lengths[i] trained tokens."""
    mask = (torch.arange(logprobs.shape[1]) < torch.tensor(lengths)[:, None]).to(logprobs.dtype)
    weights = token_weights(torch.tensor(lengths, dtype=torch.float64), aggregation, normal_length)
    now = logprobs.detach()
    return TokenBatch(
        logprobs=logprobs,
        old_logprobs=now if old is None else old,
        behaviour_logprobs=now if behaviour is None else behaviour,
        advantages=torch.as_tensor(advantages, dtype=logprobs.dtype).reshape(-1, 1) * mask,
        mask=mask,
        weights=weights[:, None] * mask,
        unit=torch.arange(len(lengths)),
        units=len(lengths),
        tokens=sum(lengths),
        reference_logprobs=reference,
        entropies=entropies,
    )


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("token_mean", 10 / 6), ("seq_mean_token_mean", 1.5), ("seq_mean_token_sum", 5.0), ("dr_grpo", 0.5), ("constant", 1.0)],
)
def test_aggregation_of_losses_1_and_2_over_lengths_2_and_4(aggregation: Aggregation, expected: float) -> None:
    weights = token_weights(tensor(2, 4), aggregation, 10)
    close((weights * tensor(2 * 1, 4 * 2)).sum(), expected)
    # Through an objective: negative log-likelihoods are the losses.
    logprobs = -torch.tensor([[1.0, 1, 9, 9], [2, 2, 2, 2]], dtype=torch.float64)
    total, statistics = SupervisedObjective(aggregation=aggregation)(batch(logprobs, [2, 4], aggregation=aggregation, normal_length=10))
    close(total, expected)
    assert [float(v) for v in statistics["nll"]] == [10.0, 6.0]


@pytest.mark.parametrize("aggregation", ["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "dr_grpo", "constant"])
def test_trajectories_without_trained_tokens_count_nowhere(aggregation: Aggregation) -> None:
    with_empty = token_weights(tensor(2, 0, 4), aggregation, 10).tolist()
    without = token_weights(tensor(2, 4), aggregation, 10).tolist()
    assert with_empty == [without[0], 0.0, without[1]]
    assert token_weights(tensor(0, 0), aggregation, 10).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("aggregation", ["dr_grpo", "constant"])
def test_a_constant_has_to_be_given(aggregation: Aggregation) -> None:
    with pytest.raises(ValueError, match=f"the {aggregation} aggregation needs a normal_length"):
        token_weights(tensor(2, 4), aggregation)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [(1, 1.5, -1.28, 0.0), (1, 0.5, -0.5, -0.5), (-1, 1.5, 1.5, 1.5), (-1, 0.5, 0.8, 0.0), (1, 1.0, -1.0, -1.0), (-1, 1.0, 1.0, 1.0)],
)
def test_clip_higher(advantage: float, ratio: float, loss: float, gradient: float) -> None:
    log_ratio = tensor(math.log(ratio)).requires_grad_()
    value = clipped_surrogate(log_ratio.exp(), tensor(advantage), low=0.2, high=0.28)
    value.sum().backward()
    close(value, [loss])
    close(log_ratio.grad, [gradient])


def test_dual_clip_bounds_the_loss_of_bad_tokens_only() -> None:
    advantages = tensor(-1, -1, 1)
    for bound, expected, gradients in ((None, [5.0, 2.0, -1.2], [5.0, 2.0, 0.0]), (3.0, [3.0, 2.0, -1.2], [0.0, 2.0, 0.0])):
        log_ratio = tensor(5, 2, 5).log().requires_grad_()
        loss = clipped_surrogate(log_ratio.exp(), advantages, low=0.2, high=0.2)
        loss = loss if bound is None else dual_clipped(loss, advantages, bound=bound)
        loss.sum().backward()
        close(loss, expected)
        close(log_ratio.grad, gradients)


def test_clipped_weight_keeps_every_gradient() -> None:
    logprobs = tensor(-1, -1, -1).requires_grad_()
    advantages = tensor(1, 1, -2)
    loss = clipped_weight_surrogate(tensor(5, 0.5, 1.1), advantages, logprobs, low=0.2, high=0.28)
    loss.sum().backward()
    close(loss, [1.28, 0.8, -2.2])
    close(logprobs.grad, [-1.28, -0.8, 2.2])


LOG_RATIOS = [0.2, -0.1, 0.2, 0.1]


@pytest.mark.parametrize(
    ("ratio", "low", "high", "loss", "gradients"),
    [
        (sequence_ratio, 0.2, 0.2, -1.1051709, [-0.2762927] * 4),
        (sequence_ratio, 3e-4, 4e-4, -1.0004, [0.0] * 4),
        (token_ratio, 9.0, 9.0, -(1.2214028 + 0.9048374 + 1.2214028 + 1.1051709) / 4, [-0.3053507, -0.2262094, -0.3053507, -0.2762927]),
        # exp(0.4) for the sequence, through each of its tokens.
        (sequence_product, 9.0, 9.0, -1.4918247, [-1.4918247] * 4),
    ],
)
def test_ratio_levels(ratio: Callable[[Tensor, Tensor, Tensor], Tensor], low: float, high: float, loss: float, gradients: list[float]) -> None:
    old = torch.full((1, 4), -1.0, dtype=torch.float64)
    logprobs = (old + tensor(*LOG_RATIOS)).requires_grad_()
    objective = PolicyObjective(ppo_surrogate(low, high), aggregation="seq_mean_token_mean", ratio=ratio)
    total, _ = objective(batch(logprobs, [4], aggregation="seq_mean_token_mean", old=old))
    total.backward()
    close(total, loss)
    close(logprobs.grad, [gradients])


def test_sequence_ratio_of_two_tokens_among_four() -> None:
    ratio = sequence_ratio(tensor(*LOG_RATIOS)[None], tensor(0, 0, 0, 0)[None], tensor(1, 0, 0, 1)[None])
    close(ratio[0, [0, 3]], [math.exp(0.15)] * 2)
    close(sequence_product(tensor(*LOG_RATIOS)[None], tensor(0, 0, 0, 0)[None], tensor(1, 0, 0, 1)[None])[0, [0, 3]], [math.exp(0.3)] * 2)


def test_log_ratios_are_clamped_before_exponentiation() -> None:
    one = tensor(1, 1)[None]
    for ratio in (token_ratio, behaviour_ratio):
        close(ratio(tensor(1000, -1000)[None], tensor(0, 0)[None], one).log(), [[20.0, -20.0]])
    assert bool(torch.isfinite(k3(tensor(-2000), tensor(-1))).all())


@pytest.mark.parametrize(
    ("own", "reference", "values", "k3_gradient"),
    [(-1.0, -1.2, (0.2, 0.02, 0.0187308), 0.1812692), (-2.0, -1.0, (-1.0, 0.5, 0.7182818), -1.7182818)],
)
def test_divergence_estimators(own: float, reference: float, values: tuple[float, ...], k3_gradient: float) -> None:
    other = tensor(reference)
    gradients = (1.0, own - reference, k3_gradient, own - reference)
    for estimator, value, gradient in zip((k1, k2, k3, k3_plus), (*values, values[2]), gradients, strict=True):
        logprobs = tensor(own).requires_grad_()
        result = estimator(logprobs, other)
        result.sum().backward()
        close(result, [value])
        close(logprobs.grad, [gradient])


@pytest.mark.parametrize(
    ("estimator", "expected_value", "expected_gradient"),
    [(k1, 0.1438410, 0.0), (k2, 0.1612137, 0.2746531), (k3, 0.1438410, 0.25), (k3_plus, 0.1438410, 0.2746531)],
)
def test_expected_divergence_of_two_tokens(estimator: Estimator, expected_value: float, expected_gradient: float) -> None:
    logits = tensor(0, 0).requires_grad_()
    logprobs = logits.log_softmax(-1)
    reference = tensor(0.25, 0.75).log()
    # On samples from p: the expectation's weights carry no gradient.
    expectation = (logprobs.detach().exp() * estimator(logprobs, reference)).sum()
    expectation.backward()
    close(expectation, expected_value)
    close(logits.grad, [expected_gradient, -expected_gradient])


def test_the_true_divergence_has_the_gradient_of_k2() -> None:
    logits = tensor(0, 0).requires_grad_()
    logprobs = logits.log_softmax(-1)
    (logprobs.exp() * (logprobs - tensor(0.25, 0.75).log())).sum().backward()
    close(logits.grad, [0.2746531, -0.2746531])


def test_weights_for_stale_tokens() -> None:
    one = tensor(1)[None]
    rho = behaviour_ratio(tensor(-0.2)[None], tensor(-1.0)[None], one)
    close(rho, [[2.2255409]])
    close(truncated_weight(rho, cap=2.0), [[2.0]])
    close(masked_weight(rho, low=0.0, high=2.0), [[0.0]])
    close(masked_weight(rho, low=0.0, high=3.0), [[2.2255409]])
    close(masked_weight(rho, low=2.5, high=3.0), [[0.0]])


@pytest.mark.parametrize(("gap", "product", "truncated", "kept"), [(0.3, 2.4596031, 2.0, 2.4596031), (0.4, 3.3201169, 2.0, 0.0)])
def test_weights_for_stale_sequences(gap: float, product: float, truncated: float, kept: float) -> None:
    mask = tensor(1, 1, 1, 0)[None]
    rho = behaviour_ratio(torch.full((1, 4), gap, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64), mask)
    whole = sequence_weight(rho, mask)[:, :3]
    close(whole, [[product] * 3])
    close(truncated_weight(whole, cap=2.0), [[truncated] * 3])
    close(masked_weight(whole, low=0.0, high=3.0), [[kept] * 3])


def test_a_correction_weighs_the_loss_without_gradient_through_the_weight() -> None:
    logprobs = torch.full((1, 2), -1.0, dtype=torch.float64, requires_grad=True)
    behaviour = tensor(-1.8, -1.0)[None]
    objective = PolicyObjective(ppo_surrogate(0.2, 0.2), correction=lambda rho, _mask: truncated_weight(rho, cap=2.0))
    total, statistics = objective(batch(logprobs, [2], behaviour=behaviour))
    total.backward()
    close(total, -(2.0 + 1.0) / 2)
    close(logprobs.grad, [[-1.0, -0.5]])
    close(statistics["sampler_gap"][0], 0.8)


def test_entropy_bonus() -> None:
    logits = tensor(0.5, 0.25, 0.25).log().requires_grad_()
    full = logits.log_softmax(-1)
    entropy = -(full.exp() * full).sum()
    objective = PolicyObjective(ppo_surrogate(0.2, 0.2), entropy_coefficient=1.0)
    total, statistics = objective(batch(full[:1][None], [1], 0.0, entropies=entropy.reshape(1, 1)))
    total.backward()
    close(total, -1.0397208)
    close(statistics["entropy"][0], 1.0397208)
    close(logits.grad, [0.1732868, -0.0866434, -0.0866434])


@pytest.mark.parametrize(
    ("advantage", "aggregation", "loss", "gradients"),
    [
        (group_normalised, "seq_mean_token_mean", 0.0, (-0.1767767, 0.0883883)),
        (group_normalised, "token_mean", 0.2357023, (-0.1178511, 0.1178511)),
        (centred, "dr_grpo", 0.05, (-0.025, 0.025)),
    ],
)
def test_whole_losses_on_policy(advantage: Callable[[Tensor], Tensor], aggregation: Aggregation, loss: float, gradients: tuple[float, float]) -> None:
    logprobs = torch.full((2, 4), -1.0, dtype=torch.float64, requires_grad=True)
    objective = PolicyObjective(ppo_surrogate(0.2, 0.2), aggregation=aggregation, normal_length=10)
    total, statistics = objective(batch(logprobs, [2, 4], advantage(tensor(1, 0)), aggregation=aggregation, normal_length=10))
    total.backward()
    close(total, loss)
    close(logprobs.grad, [[gradients[0]] * 2 + [0.0] * 2, [gradients[1]] * 4])
    assert {name: float(s / n) for name, (s, n) in statistics.items()} == {"clip_fraction": 0.0, "ratio": 1.0, "kl_old": 0.0, "sampler_gap": 0.0}


def test_the_divergence_from_the_old_policy_is_measured_on_its_samples() -> None:
    # old = (1/2, 1/2) drew both tokens once; pi = (1/4, 3/4), so r = (1/2, 3/2).
    logprobs, old = tensor(0.25, 0.75).log()[None].requires_grad_(), tensor(0.5, 0.5).log()[None]
    _, statistics = PolicyObjective(ppo_surrogate(0.2, 0.2))(batch(logprobs, [2], old=old))
    total, count = statistics["kl_old"]
    # KL(old || pi) = log(1/2 / sqrt(3/16)) = .1438410, as the mean of r - 1 - log r = (.1931472, .0945349); KL(pi || old) would be .1308120.
    close(total, 0.1931472 + 0.0945349)
    close(total / count, 0.1438410)


def test_the_divergence_from_the_reference_is_that_of_the_current_policy() -> None:
    # Samples of old = (1/2, 1/2) stand for those of pi = (1/4, 3/4) by their weights r = (1/2, 3/2): KL(pi || ref) = 1/4 log 1/2 + 3/4 log 3/2 = .1308120.
    # Unweighted, they would give E_old[log pi - log ref] = -.1438410.
    logprobs, old = tensor(0.25, 0.75).log()[None].requires_grad_(), tensor(0.5, 0.5).log()[None]
    _, statistics = PolicyObjective(ppo_surrogate(0.2, 0.2), kl_coefficient=0.1)(batch(logprobs, [2], old=old, reference=old))
    total, count = statistics["kl_reference"]
    close(total / count, 0.1308120)
    assert not total.requires_grad


@pytest.mark.parametrize("aggregation", ["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "dr_grpo"])
def test_the_entropy_bonus_is_the_mean_over_tokens_whatever_the_aggregation(aggregation: Aggregation) -> None:
    # Entropies 1 on an answer of two tokens and 2 on one of four: mean 10/6, of which half is taken off; each token's gradient is -.5/6.
    logprobs = torch.full((2, 4), -1.0, dtype=torch.float64, requires_grad=True)
    entropies = torch.tensor([[1.0, 1, 7, 7], [2, 2, 2, 2]], dtype=torch.float64, requires_grad=True)
    objective = PolicyObjective(ppo_surrogate(0.2, 0.2), aggregation=aggregation, normal_length=10, entropy_coefficient=0.5)
    total, statistics = objective(batch(logprobs, [2, 4], 0.0, aggregation=aggregation, normal_length=10, entropies=entropies))
    total.backward()
    close(total, -0.5 * 10 / 6)
    close(entropies.grad, [[-0.5 / 6] * 2 + [0.0] * 2, [-0.5 / 6] * 4])  # type: ignore[arg-type]
    close(statistics["entropy"][0] / statistics["entropy"][1], 10 / 6)


def test_divergence_from_the_reference_enters_with_the_same_denominator() -> None:
    logprobs = torch.full((2, 4), -1.0, dtype=torch.float64, requires_grad=True)
    reference = torch.full((2, 4), -1.2, dtype=torch.float64)
    objective = PolicyObjective(ppo_surrogate(0.2, 0.2), aggregation="seq_mean_token_mean", kl_coefficient=0.5)
    total, statistics = objective(batch(logprobs, [2, 4], 0.0, aggregation="seq_mean_token_mean", reference=reference))
    total.backward()
    close(total, 0.5 * 0.0187308)
    close(logprobs.grad, [[0.5 * 0.1812692 / 4] * 2 + [0.0] * 2, [0.5 * 0.1812692 / 8] * 4])
    close(statistics["kl_reference"][0] / statistics["kl_reference"][1], 0.2)


def test_clip_fraction_counts_tokens_whose_gradient_the_clip_took() -> None:
    old = torch.zeros(1, 4, dtype=torch.float64)
    logprobs = tensor(1.5, 1.5, 0.5, 0.5).log()[None].requires_grad_()
    sample = batch(logprobs, [4], old=old)
    sample.advantages = tensor(1, -1, 1, -1)[None]
    total, statistics = PolicyObjective(ppo_surrogate(0.2, 0.2))(sample)
    total.backward()
    assert [float(v) for v in statistics["clip_fraction"]] == [2.0, 4.0]
    assert [g != 0 for g in logprobs.grad[0].tolist()] == [False, True, True, False]


def test_preference_loss() -> None:
    chosen = tensor(-2, -3).requires_grad_()
    rejected = tensor(-4, -3).requires_grad_()
    loss = dpo_loss(chosen, rejected, tensor(-3, -3), tensor(-3, -3), beta=0.5)
    loss.sum().backward()
    # Margins 1 and 0: -log sigmoid(m), with gradient -beta (1 - sigmoid(m)) on the chosen.
    close(loss, [0.3132617, 0.6931472])
    close(chosen.grad, [-0.5 * 0.2689414, -0.25])
    close(rejected.grad, [0.5 * 0.2689414, 0.25])


def preference_batch(units: list[int]) -> TokenBatch:
    logprobs = -torch.tensor([[1.0, 1, 7], [2, 1, 1], [1, 1, 1], [3, 7, 7]], dtype=torch.float64)
    sample = batch(
        logprobs.requires_grad_(), [2, 3, 3, 1], aggregation="seq_mean_token_sum", reference=-torch.tensor([[2.0], [1], [1], [3]]).expand(4, 3).double()
    )
    sample.unit = torch.tensor(units)
    sample.units = 2
    return sample


def test_preference_objective_is_the_mean_over_pairs() -> None:
    # Own minus reference: pair 0 has -2+4 = 2 and -4+3 = -1, pair 1 has -3+3 = 0 and -3+3 = 0.
    total, statistics = PreferenceObjective(beta=0.1)(preference_batch([0, 0, 1, 1]))
    close(total, (math.log(1 + math.exp(-0.3)) + math.log(2)) / 2)
    close(statistics["margin"][0], 0.3)
    assert [float(v) for v in statistics["preference_accuracy"]] == [1.0, 2.0]


@pytest.mark.parametrize("units", [[0, 1, 1, 0], [0, 1, 2, 3]])
def test_preference_objective_refuses_what_is_not_pairs(units: list[int]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        PreferenceObjective()(preference_batch(units))


def test_supervised_loss_weighted_by_advantages() -> None:
    logprobs = -torch.tensor([[1.0, 3], [2, 2]], dtype=torch.float64)
    close(SupervisedObjective()(batch(logprobs, [2, 2], tensor(1, 0)))[0], 2.0)
    close(SupervisedObjective(weighted=True)(batch(logprobs, [2, 2], tensor(1, 0)))[0], 1.0)
    assert SupervisedObjective(weighted=True).silent_without_advantage
    assert not SupervisedObjective().silent_without_advantage


def test_only_objectives_of_advantages_alone_are_silent_without_them() -> None:
    surrogate = ppo_surrogate(0.2, 0.2)
    assert PolicyObjective(surrogate).silent_without_advantage
    assert not PolicyObjective(surrogate, kl_coefficient=0.1).silent_without_advantage
    assert not PolicyObjective(surrogate, entropy_coefficient=0.1).silent_without_advantage
    assert not PreferenceObjective().silent_without_advantage


def test_entropy_coefficient_adapts_within_its_bounds() -> None:
    adaptive = AdaptiveEntropy(target=0.2, step=0.005, maximum=0.012)
    assert [adaptive.update(0.1) for _ in range(3)] == pytest.approx([0.005, 0.01, 0.012])
    # Above the target it falls, and is not applied.
    assert adaptive.update(0.3) == 0.0
    assert adaptive.coefficient == pytest.approx(0.007)
    assert [adaptive.update(0.3) for _ in range(2)] == [0.0, 0.0]
    assert adaptive.coefficient == 0.0
    assert adaptive.update(0.2) == 0.0


def test_a_loss_that_is_a_sum_averages_each_part_by_itself() -> None:
    lengths = torch.tensor([2.0, 6.0, 4.0, 0.0])
    weights = summed_weights(lengths, ["a", "b", "a", "b"], "token_mean")
    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0])
    # The tokens of each part share 1: six of the first, six of the second.
    assert float((weights * lengths).sum()) == pytest.approx(2.0)
    means = summed_weights(lengths, ["a", "b", "a", "b"], "seq_mean_token_mean")
    assert means.tolist() == pytest.approx([1 / (2 * 2), 1 / 6, 1 / (2 * 4), 0])
    assert torch.equal(summed_weights(lengths, [None] * 4, "token_mean"), token_weights(lengths, "token_mean"))
