"""The flow model: its shape, its loss and its walks against flows that are known in closed form."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from etude.errors import InputError
from etude.images.captions import NO_CAPTION
from etude.models.flow import (
    FlowModel,
    FlowShape,
    drop_captions,
    flow_matching_loss,
    gaussian_logprob,
    guided,
    noisy,
    noisy_step,
    patches_to_pixels,
    pixels_to_patches,
    time_grid,
    walk,
)

SMALL = FlowShape(width=32, layers=1, heads=2)
CAPTIONS = torch.tensor([[1, 0, 0, 21], [0, 5, 0, 0]])


class ToOnePicture(FlowModel):
    """The exact flow where there is one picture only: v = (x_t - x0) / t, so that every walk ends there. With a caption of none, at its negative."""

    target = 0.5

    def forward(self, pictures: Tensor, times: Tensor, captions: Tensor, until: Tensor | None = None) -> Tensor:
        sign = torch.where(captions[:, 0] == NO_CAPTION, -1.0, 1.0)[:, None, None, None]
        return (pictures - sign * self.target) / times[:, None, None, None]


def pictures(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_patches_are_cut_and_put_back() -> None:
    x = pictures()
    patches = pixels_to_patches(x, 4)
    assert patches.shape == (2, 16, 48)
    torch.testing.assert_close(patches[:, 1].unflatten(1, (3, 4, 4)), x[:, :, :4, 4:8])
    torch.testing.assert_close(patches_to_pixels(patches, 4), x)


def test_an_untrained_model_predicts_nothing_and_a_trained_one_saves_and_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FlowModel(SMALL)
    times = torch.tensor([0.3, 0.9])
    assert model(pictures(), times, CAPTIONS).abs().max() == 0
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = flow_matching_loss(model, pictures(), CAPTIONS, times, pictures(1))
    for _ in range(5):
        optimiser.zero_grad()
        flow_matching_loss(model, pictures(), CAPTIONS, times, pictures(1)).backward()
        optimiser.step()
    assert flow_matching_loss(model, pictures(), CAPTIONS, times, pictures(1)) < before
    model.save(tmp_path / "flow")
    torch.testing.assert_close(FlowModel.load(tmp_path / "flow")(pictures(), times, CAPTIONS), model(pictures(), times, CAPTIONS))
    assert model(pictures(), times, CAPTIONS, until=times / 2).sub(model(pictures(), times, CAPTIONS)).abs().max() > 0
    with pytest.raises(InputError, match="holds no flow model"):
        FlowModel.load(tmp_path)


def test_noise_is_mixed_in_and_the_loss_is_the_squared_error_of_the_velocity() -> None:
    x, noise = torch.full((2, 3, 16, 16), 1.0), torch.full((2, 3, 16, 16), -1.0)
    mixed = noisy(x, noise, torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(mixed[:, 0, 0, 0], torch.tensor([0.5, -1.0]))
    # An untrained model predicts 0 where the velocity is -2.
    assert flow_matching_loss(FlowModel(SMALL), x, CAPTIONS, torch.tensor([0.5, 0.5]), noise).item() == pytest.approx(4)


def test_time_grids_go_from_noise_to_picture() -> None:
    assert time_grid(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    # 3 * 0.5 / (1 + 2 * 0.5)
    assert time_grid(2, shift=3).tolist() == pytest.approx([1, 0.75, 0])
    with pytest.raises(InputError, match="in 0 steps"):
        time_grid(0)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_walk_along_an_exact_flow_ends_at_its_picture(steps: int) -> None:
    torch.testing.assert_close(walk(ToOnePicture(SMALL), CAPTIONS, pictures(), steps), torch.full((2, 3, 16, 16), 0.5))


def test_guidance_goes_away_from_what_is_drawn_without_a_caption() -> None:
    x, times = torch.zeros(2, 3, 16, 16), torch.tensor([0.5, 0.5])
    # With a caption -1, without 1: 1 + 2 (-1 - 1).
    torch.testing.assert_close(guided(ToOnePicture(SMALL), x, times, CAPTIONS, guidance=2.0), torch.full_like(x, -3.0))


def test_captions_are_dropped_whole() -> None:
    dropped = drop_captions(CAPTIONS.repeat(2000, 1), 0.1, torch.Generator().manual_seed(0))
    none = (dropped == NO_CAPTION).all(1)
    assert none.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(dropped[~none], CAPTIONS.repeat(2000, 1)[~none])


def test_a_noisy_step_by_hand() -> None:
    # x = 2, v = 1 at t = 0.5: x0 = 1.5, score = -(2 - 0.75) / 0.25 = -5. A step of 0.25 with eta 0.4: 2 - 0.25 - 0.5 * 0.16 * 0.25 * 5 = 1.65.
    mean, deviation = noisy_step(torch.full((1, 3, 2, 2), 2.0), torch.ones(1, 3, 2, 2), torch.tensor([0.5]), torch.tensor([0.25]), eta=0.4)
    assert mean[0, 0, 0, 0].item() == pytest.approx(1.65)
    assert deviation.tolist() == pytest.approx([0.2])


def test_noisy_steps_keep_the_marginal_law_of_the_flow() -> None:
    # Pictures are N(0, 1) and so is noise: x_t is N(0, (1 - t)^2 + t^2), and the exact velocity is (2 t - 1) x / ((1 - t)^2 + t^2).
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 1, 2, 2, generator=generator)
    grid = torch.linspace(1, 0.5, 101).tolist()
    for now, then in itertools.pairwise(grid):
        mean, deviation = noisy_step(x, (2 * now - 1) * x / ((1 - now) ** 2 + now**2), torch.tensor([now]), torch.tensor([then]), eta=0.7)
        x = mean + deviation * torch.randn(x.shape, generator=generator)
    assert x.var().item() == pytest.approx(0.5, rel=0.05)


def test_log_density_is_the_mean_over_dimensions() -> None:
    value, mean = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    by_hand = sum(-0.5 * (v / 2) ** 2 - math.log(2) - 0.5 * math.log(2 * math.pi) for v in (1, 2)) / 2
    assert gaussian_logprob(value, mean, torch.tensor([2.0])).item() == pytest.approx(by_hand)
