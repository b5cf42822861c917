"""The gradient noise of baselines: the gradient itself on a case worked out by hand, and the experiment at its smallest."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from etude.errors import InputError
from etude.experiments.gradient_noise import BASELINES, gradient_noise, task_gradient
from etude.types import Segment, Task, Trajectory


class Constant(torch.nn.Module):
    """A model that predicts the same distribution everywhere: softmax of its two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(2))

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, 2))


def attempt(tokens: list[int]) -> Trajectory:
    return Trajectory(Task("t", ()), [0, 1, 1], [Segment(tokens, "policy", trained=True)], "eos")


def test_the_gradient_is_that_of_the_likelihood_of_what_was_written() -> None:
    # With p = (1/2, 1/2), d log p(token 1) / d logits = (-1/2, +1/2) and d log p(token 0) the opposite. The first attempt writes 1 1 1, the second 0:
    # (2 * 3 * (-1/2, 1/2) + 4 * (1/2, -1/2)) / 2 = (-1/2, 1/2). Prompt and padding add nothing.
    gradient = task_gradient(Constant(), [attempt([1, 1, 1]), attempt([0])], torch.tensor([2.0, 4.0]))
    assert gradient.tolist() == pytest.approx([-0.5, 0.5])


def test_baselines() -> None:
    rewards_G = torch.tensor([1.0, 0.0, 0.0])
    assert BASELINES["none"](rewards_G, 0.5).tolist() == [1.0, 0.0, 0.0]
    assert BASELINES["batch-mean"](rewards_G, 0.5).tolist() == [0.5, -0.5, -0.5]
    assert BASELINES["leave-one-out"](rewards_G, 0.5).tolist() == pytest.approx([1.0, -0.5, -0.5])


def test_an_offset_changes_nothing_for_a_baseline_and_much_without_one() -> None:
    def log2_variance(baseline: str, offset: float) -> float:
        found = gradient_noise(0, {"baseline": baseline, "offset": offset, "group_size": 4}, "16-rollouts")
        assert all(map(math.isfinite, found.values()))
        return found["log2_variance"]

    assert log2_variance("leave-one-out", 5.0) == pytest.approx(log2_variance("leave-one-out", 0.0), abs=1e-3)
    assert log2_variance("none", 5.0) > log2_variance("none", 0.0) + 1


@pytest.mark.parametrize(
    ("settings", "budget", "said"),
    [
        ({"baselin": "none"}, "32-rollouts", "Did you mean baseline"),
        ({"baseline": "nothing"}, "32-rollouts", "no baseline 'nothing'"),
        ({"group_size": 1}, "32-rollouts", "at least 2"),
        ({}, "8-rollouts", "two tasks at least"),
        ({}, "3-steps", "expected rollouts"),
    ],
)
def test_what_cannot_be_run_is_refused(settings: dict[str, object], budget: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        gradient_noise(0, settings, budget)
