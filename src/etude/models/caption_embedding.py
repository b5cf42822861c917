"""How a model that draws reads its caption: a vector for each of its words, with a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from etude.images.captions import PLACES, VOCABULARY
from etude.images.drawing import CENTRES, SIZE


@dataclass(frozen=True)
class CaptionShape:
    """What captions look like: numbers below `vocabulary`, `words` of them. placed: they are the places of the picture world, so that each has its middle as its position."""

    vocabulary: int = VOCABULARY
    words: int = len(PLACES)
    placed: bool = True


class CaptionEmbedding(nn.Module):
    """Captions [B, W] to vectors [B, W, width]."""

    def __init__(self, shape: CaptionShape, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, width)
        centres = [(row + 0.5, column + 0.5) for row, column in CENTRES]
        self.places = nn.Parameter(plane_positions(centres, width) if shape.placed else 0.02 * torch.randn(shape.words, width))

    def forward(self, captions: Tensor) -> Tensor:
        return self.words(captions) + self.places


def plane_positions(points: Sequence[tuple[float, float]], width: int, *, amplitude: float = 0.7) -> Tensor:
    """Sines and cosines of rows and columns, half the width each: [N, width]. Points that are near in the plane have vectors that are alike.

    A model that begins with them knows which patch a place is about; with small random positions it draws the right colours in wrong places for long.
    """
    where = torch.tensor(points, dtype=torch.float32)
    frequencies = torch.pi / SIZE * 2 ** (torch.arange(width // 4) * 4 / max(1, width // 4 - 1))
    angles = where[:, :, None] * frequencies
    return amplitude * torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)
