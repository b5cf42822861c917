"""A small network that has learnt to read the world's captions off its pictures: what pictures are compared in, and a second opinion on them.

It is trained once, on drawn pictures, and shipped, so that distances mean the same wherever they are measured. It is never a reward here: an audit asks it whether
what the judge of pixels rewards is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from etude.images.captions import KINDS, PLACES, draw_captions
from etude.images.drawing import draw

WEIGHTS = Path(__file__).parent.parent / "assets" / "tiny-images" / "features.safetensors"
FEATURES = 64
BATCH = 512
REFERENCE_SEED, REFERENCE_COUNT = 777, 8192
"""The real pictures that others are compared with."""


class FeatureNet(nn.Module):
    """Three convolutions, a layer of features, and for each place which kind is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1024, FEATURES),
        )
        self.head = nn.Linear(FEATURES, len(PLACES) * KINDS.stop)

    def features(self, pictures: Tensor) -> Tensor:
        """[B, 3, 16, 16] to [B, 64]."""
        return self.body(pictures)

    def captions(self, features: Tensor) -> Tensor:
        """Logits of kinds in places [B, 4, 25], from features [B, 64]."""
        return self.head(features.relu()).unflatten(1, (len(PLACES), KINDS.stop))


@cache
def feature_net() -> FeatureNet:
    """The shipped network."""
    net = FeatureNet()
    net.load_state_dict(load_file(WEIGHTS))
    return net.eval().requires_grad_(False)


def features_of(pictures: Tensor) -> Tensor:
    """Features of many pictures [B, 3, 16, 16], some at a time: [B, 64], in float64."""
    net = feature_net()
    return torch.cat([net.features(part) for part in pictures.float().cpu().split(BATCH)]).double()


def recognised(pictures: Tensor, captions: Tensor) -> Tensor:
    """Whether the network reads off each picture just what its caption [B, 4] says: [B], 1 or 0."""
    net = feature_net()
    read = torch.cat([net.captions(net.features(part)).argmax(2) for part in pictures.float().cpu().split(BATCH)])
    return (read == captions.cpu()).all(1).float()


@dataclass(frozen=True)
class Reference:
    """Features [N, 64] of real pictures, with the mean and the standard deviation [64] that features are standardised by."""

    features: Tensor
    mean: Tensor
    std: Tensor

    def standardised(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std


@cache
def reference() -> Reference:
    """Features of 8,192 drawn pictures of uniform captions, always the same ones."""
    random = np.random.default_rng(REFERENCE_SEED)
    features = features_of(torch.from_numpy(draw(draw_captions(REFERENCE_COUNT, "uniform", random), random)))
    return Reference(features, features.mean(0), features.std(0))
