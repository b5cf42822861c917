"""Pictures as a 4 x 4 grid of tokens, each about what is in its place, read row by row: what tokens of pictures usually are, and what ordered ones are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.models.picture_code import CodeLoss, PictureCode
from etude.models.picture_tokens import ResidualBlock
from etude.models.vector_quantiser import CosineQuantiser


@dataclass(frozen=True)
class SpatialShape:
    """Sizes of a tokenizer: codes and their width, the width of its convolutions, and the side of the grid."""

    codes: int = 64
    code_width: int = 8
    hidden: int = 64
    side: int = 4
    decay: float = 0.99


class SpatialTokenizer(PictureCode):
    """Convolutions down to the grid and back up."""

    kind = "spatial"

    def __init__(self, shape: SpatialShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or SpatialShape()
        self.count, self.codes = shape.side**2, shape.codes
        hidden = shape.hidden
        self.encoder = nn.Sequential(
            nn.Conv2d(3, hidden, 4, stride=2, padding=1),
            ResidualBlock(hidden),
            nn.Conv2d(hidden, hidden, 4, stride=2, padding=1),
            ResidualBlock(hidden),
            nn.Conv2d(hidden, shape.code_width, 1),
        )
        self.quantiser = CosineQuantiser(shape.codes, shape.code_width, decay=shape.decay)
        self.decoder = nn.Sequential(
            nn.Conv2d(shape.code_width, hidden, 3, padding=1),
            ResidualBlock(hidden),
            nn.ConvTranspose2d(hidden, hidden, 4, stride=2, padding=1),
            ResidualBlock(hidden),
            nn.ReLU(),
            nn.ConvTranspose2d(hidden, 3, 4, stride=2, padding=1),
        )

    def vectors(self, pictures: Tensor) -> Tensor:
        """[B, 3, 16, 16] to [B, K, C], row by row."""
        return self.encoder(pictures).flatten(2).transpose(1, 2)

    def encode(self, pictures: Tensor) -> Tensor:
        return self.quantiser.nearest(self.vectors(pictures))

    def loss(self, pictures: Tensor, generator: torch.Generator) -> CodeLoss:
        vectors = self.vectors(pictures)
        self.quantiser.follow(vectors, generator)
        found = self.quantiser(vectors)
        return CodeLoss(F.mse_loss(self._drawn(found.vectors), pictures), found)

    def render(self, tokens: Tensor) -> Tensor:
        return self._drawn(self.quantiser.codebook[tokens]).clamp(-1, 1)

    @torch.no_grad()
    def sketch(self, tokens: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        """Nothing stands in the places of the others."""
        return self._drawn(self.quantiser.codebook[tokens] * kept[:, None]).clamp(-1, 1)

    def _drawn(self, codes: Tensor) -> Tensor:
        side = self.shape.side
        return self.decoder(codes.transpose(1, 2).unflatten(2, (side, side)))
