"""A copy of the policy that follows it slowly."""

from __future__ import annotations

import math

import pytest
import torch

from etude.models.averaged import AveragedModel, annealed
from etude.models.language import LanguageModel
from etude.models.sampling import Request, SamplingParams
from etude.types import Message


def test_it_moves_by_a_share_of_the_way_and_samples_from_the_average() -> None:
    policy = LanguageModel.load("tiny", device="cpu")
    teacher = AveragedModel(policy)
    start = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    request = [Request(tuple(policy.render([Message("user", "compute 9*8+19")])), SamplingParams(12), stream=3)]
    before = policy.sampler.generate(request)[0]
    assert teacher.model.sampler.generate(request)[0].tokens == before.tokens
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(3.0)
    # The policy has moved, its average has not yet.
    assert teacher.model.sampler.generate(request)[0].logprobs == before.logprobs
    teacher.follow(0.25)
    for name, average in teacher.state().items():
        torch.testing.assert_close(average, 1.5 * start[name])
    assert teacher.model.sampler.generate(request)[0].logprobs != before.logprobs
    teacher.follow(1.0)
    policy.sampler.update(1, policy.model.named_parameters())
    assert teacher.model.sampler.generate(request)[0].logprobs == policy.sampler.generate(request)[0].logprobs


def test_it_goes_back_to_a_saved_average() -> None:
    policy = LanguageModel.load("tiny", device="cpu")
    teacher, other = AveragedModel(policy), AveragedModel(policy)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.1)
    teacher.follow(0.5)
    other.load_state(teacher.state())
    assert all(torch.equal(value, other.state()[name]) for name, value in teacher.state().items())


def test_small_steps_are_not_lost_in_a_narrow_format() -> None:
    policy = LanguageModel.load("tiny", device="cpu", dtype="bfloat16")
    teacher = AveragedModel(policy)
    start = teacher.state()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.fill_(1.0)
    for _ in range(100):
        teacher.follow(1e-4)
    for name, average in teacher.state().items():
        torch.testing.assert_close(average, 1 - (1 - start[name]) * (1 - 1e-4) ** 100, rtol=1e-4, atol=1e-5)


def test_the_rate_falls_along_half_a_cosine() -> None:
    assert annealed(0.01, 1e-5, 0.0) == pytest.approx(0.01)
    assert annealed(0.01, 1e-5, 0.5) == pytest.approx((0.01 + 1e-5) / 2)
    assert annealed(0.01, 1e-5, 1.0) == annealed(0.01, 1e-5, 7.0) == pytest.approx(1e-5)
    assert annealed(1.0, 0.0, 0.25) == pytest.approx((1 + math.sqrt(0.5)) / 2)
