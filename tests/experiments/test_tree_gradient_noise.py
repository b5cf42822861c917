from __future__ import annotations

import pytest
import torch

from etude.experiments.tree_gradient_noise import PICTURES, WAYS, StudySettings, study, tree_gradient, variance_and_signal
from etude.images.sources import open_source
from etude.models.flow import FlowModel, time_grid
from etude.picturing import ASSETS
from etude.rollouts.denoising import TreePlan, grow_forest


def test_the_noise_of_gradients_without_bias():
    # Mean (2, 0), sum of squares around it 2, over R - 1 = 1; the squared norm of the mean is 4, of which 2/2 is noise.
    assert variance_and_signal(torch.tensor([[1.0, 0.0], [3.0, 0.0]])) == pytest.approx((2.0, 3.0))
    assert variance_and_signal(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx((2.0, -1.0))


def test_equal_rewards_give_no_gradient_and_unequal_ones_do():
    model, (_, captions) = FlowModel.load(ASSETS / "flow"), open_source("pictures").held_out(1)
    plan = TreePlan(time_grid(2).tolist(), frozenset({0}))
    forest = grow_forest(model, captions.repeat_interleave(PICTURES // 2, 0), torch.randn(PICTURES // 2, 3, 16, 16), plan, torch.Generator().manual_seed(0))
    for by_depth in (True, False):
        assert not tree_gradient(model, forest, torch.ones(PICTURES), by_depth, 0.5).any()
        assert tree_gradient(model, forest, torch.arange(float(PICTURES)), by_depth, 0.5).norm() > 0


def test_the_study_counts_passes():
    found = study(StudySettings(captions=1, repeats=2, seeds=1)).values
    assert {name: runs[0]["passes"] for name, runs in found.items()} == dict(zip(WAYS, (77, 77, 36, 160), strict=True))
