"""What is drawn is what the caption says, and the judge of pixels sees it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from etude.images.captions import Caption, draw_captions, kind, without_places
from etude.images.drawing import PAINT, POSES, draw, masks
from etude.images.judge import UNRECOGNISED, alignment, alignment_anywhere, look

RED_CIRCLE, BLUE_CROSS = kind(0, 0), kind(3, 2)


@pytest.fixture(scope="module")
def world() -> tuple[list[Caption], Tensor, Tensor]:
    random = np.random.default_rng(5)
    captions = draw_captions(1500, "uniform", random)
    return captions, torch.from_numpy(draw(captions, random)), torch.tensor(captions)


def test_a_picture_has_its_objects_where_they_belong() -> None:
    picture = draw([(RED_CIRCLE, 0, 0, kind(1, 2))], np.random.default_rng(0))[0]
    assert (picture.shape, picture.dtype) == ((3, 16, 16), np.float32)
    np.testing.assert_allclose(picture[:, 4, 4], PAINT[0], atol=0.3)
    np.testing.assert_allclose(picture[:, 12, 12], PAINT[2], atol=0.3)
    background = picture[:, :8, 8:]
    assert background.mean() == pytest.approx(-0.8, abs=0.16)
    assert background.std() < 0.05


def test_masks_cover_about_the_area_of_their_shape() -> None:
    areas = masks()[0, :, POSES.index((0.0, 0.0, 3.0))].sum((1, 2))
    # pi r^2, (2 * 0.86 r)^2, half of 1.8 r * 2 * 0.62 * 1.8 r, and a cross of two bars 0.66 r wide.
    np.testing.assert_allclose(areas, [28.27, 26.63, 18.08, 19.84], rtol=0.07)


def test_drawing_depends_on_the_seed_alone() -> None:
    captions = draw_captions(8, "uniform", np.random.default_rng(1))
    first, again, other = (draw(captions, np.random.default_rng(seed)) for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).max() > 0.1


def test_the_judge_passes_real_pictures_and_not_those_of_other_captions(world: tuple[list[Caption], Tensor, Tensor]) -> None:
    _, pictures, captions = world
    own, others = alignment(pictures, captions), alignment(pictures, captions.roll(1, 0))
    assert own.soft.mean() > 0.99
    assert own.strict.mean() > 0.95
    assert others.soft.mean() < 0.37
    assert others.strict.mean() < 0.01


def test_checks_are_counted_one_a_place_and_two_an_object() -> None:
    picture = torch.from_numpy(draw([(RED_CIRCLE, 0, 0, 0)], np.random.default_rng(0)))

    def soft(*caption: int) -> float:
        return float(alignment(picture, torch.tensor([caption])).soft[0])

    assert soft(RED_CIRCLE, 0, 0, 0) == 1
    # Of 6 checks the colour fails, or the shape, or both.
    assert (soft(kind(0, 1), 0, 0, 0), soft(kind(2, 0), 0, 0, 0), soft(BLUE_CROSS, 0, 0, 0)) == pytest.approx((5 / 6, 5 / 6, 4 / 6))
    # In the wrong place, two presences, the colour and the shape fail; an object too few is presence, colour and shape of 8.
    assert (soft(0, RED_CIRCLE, 0, 0), soft(RED_CIRCLE, 0, 0, BLUE_CROSS)) == pytest.approx((2 / 6, 5 / 8))


def test_swapped_places_fail_and_shapes_survive_a_change_of_colour() -> None:
    random = np.random.default_rng(0)
    swapped = torch.from_numpy(draw([(BLUE_CROSS, RED_CIRCLE, 0, 0)] * 64, random))
    asked = torch.tensor([(RED_CIRCLE, BLUE_CROSS, 0, 0)] * 64)
    assert alignment(swapped, asked).strict.sum() == 0
    recoloured = torch.from_numpy(draw([(kind(0, 2), kind(3, 0), 0, 0)] * 64, random))
    # 4 presences and 2 shapes of 8 checks.
    assert alignment(recoloured, asked).soft.mean() == pytest.approx(6 / 8, abs=0.01)


def test_captions_without_places_are_judged_anywhere(world: tuple[list[Caption], Tensor, Tensor]) -> None:
    captions, pictures, _ = world
    moved = torch.tensor([without_places(caption) for caption in captions])
    assert alignment_anywhere(pictures, moved).strict.mean() > 0.95
    wrong = alignment_anywhere(pictures[:1], torch.tensor([(RED_CIRCLE, RED_CIRCLE, RED_CIRCLE, RED_CIRCLE)]))
    assert (wrong.strict.item(), wrong.soft.item()) in ((0, 0), (0, 0.25), (0, 0.5))


def test_a_light_background_counts_as_objects_and_a_smudge_is_not_recognised() -> None:
    grey = torch.full((1, 3, 16, 16), 0.2)
    assert look(grey).kinds.tolist() == [[UNRECOGNISED] * 4]
    assert look(torch.full((1, 3, 16, 16), -0.8)).kinds.tolist() == [[0] * 4]


def test_blur_lowers_what_the_judge_sees(world: tuple[list[Caption], Tensor, Tensor]) -> None:
    _, pictures, captions = world
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    assert alignment(blurred, captions).strict.mean() < 0.6
