"""Distances between sets of pictures, by hand, and the network that the world's pictures are compared in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from etude.errors import InputError
from etude.evals.pictures import diversity, frechet_distance, kernel_distance, precision_and_recall
from etude.images.captions import draw_captions
from etude.images.drawing import draw
from etude.images.features import features_of, recognised, reference
from etude.images.judge import alignment


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_frechet_distance_in_one_dimension_and_in_two() -> None:
    # Means 1 and 6, variances 2 and 18: 25 + (sqrt 18 - sqrt 2)^2.
    assert frechet_distance(column(0, 2), column(3, 9)) == pytest.approx(33)
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]], dtype=torch.float64)
    # Equal spread in both, moved by (3, 4): 25, over two dimensions.
    assert frechet_distance(square, square + torch.tensor([3.0, 4.0])) == pytest.approx(12.5)
    assert frechet_distance(square, square) == pytest.approx(0, abs=1e-12)


def test_kernel_distance_by_hand() -> None:
    # Among 0 and 2: 1. Among 1 and 1: 8. Between: (1 + 27) / 2.
    assert kernel_distance(column(0, 2), column(1, 1)) == pytest.approx(1 + 8 - 28)


def test_precision_and_recall_by_hand() -> None:
    # Real ones reach 1 each, so that only 0.5 lies among them; made ones reach 9.5 from 0.5, which covers all real ones.
    assert precision_and_recall(column(0.5, 10, 11, 12), column(0, 1, 2, 3), neighbours=1) == (0.25, 1.0)


def test_diversity_is_the_mean_distance_within_a_caption() -> None:
    assert diversity(torch.stack([column(0, 1, 3), column(5, 5, 5)])) == pytest.approx((2 + 0) / 2)


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="1 made and 2 real pictures; expected at least 2"):
        frechet_distance(column(1), column(1, 2))
    with pytest.raises(InputError, match="expected at least 4"):
        precision_and_recall(column(1, 2, 3), column(1, 2, 3, 4))
    with pytest.raises(InputError, match="1 picture of each caption"):
        diversity(column(1)[None])


def test_the_shipped_network_orders_what_is_done_to_pictures_and_agrees_with_the_judge() -> None:
    random = np.random.default_rng(9)
    captions = draw_captions(1024, "uniform", random)
    pictures, wanted = torch.from_numpy(draw(captions, random)), torch.tensor(captions)
    noise = torch.from_numpy(random.normal(size=pictures.shape).astype(np.float32))
    real = reference()

    def distance(changed: Tensor) -> float:
        return frechet_distance(real.standardised(features_of(changed)), real.standardised(real.features))

    clean, little, some, much = (distance(pictures + n * noise) for n in (0, 0.1, 0.2, 0.4))
    assert clean < little < some < much
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    assert distance(blurred) > some
    read, strict = recognised(pictures, wanted), alignment(pictures, wanted).strict
    assert read.mean() > 0.95
    assert (read == strict).float().mean() > 0.9
