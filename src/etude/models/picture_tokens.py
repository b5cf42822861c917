"""Pictures as tokens at several scales: a small autoencoder whose middle is looked up in a codebook, coarse to fine (VAR, arXiv:2404.02905; FlexVAR, arXiv:2502.20313).

A picture becomes a map f of 8 x 8 vectors. At each scale r the map is averaged down to r x r, and each vector replaced by the number of the nearest code. Either every
scale says the whole picture again, more finely, and the last one alone is decoded (FlexVAR), or every scale says what those before it left out (`residual`, VAR).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from etude.errors import InputError

SCALES = (1, 2, 4, 8)
REUSED = 0.2
"""A code that is used less than this share of its due is put somewhere else."""


@dataclass(frozen=True)
class TokenizerShape:
    """Sizes of a tokenizer. decay: of the moving averages that codes are."""

    codes: int = 128
    width: int = 8
    hidden: int = 48
    residual: bool = False
    decay: float = 0.98
    scales: tuple[int, ...] = SCALES


@dataclass(frozen=True)
class Looked:
    """What looking a map up gave: at each scale the codes' numbers [B, r^2], and the map that they say together [B, C, R, R]."""

    tokens: list[Tensor]
    map: Tensor


class ScaleTokenizer(nn.Module):
    """16 x 16 pictures to codes at each scale, and back."""

    def __init__(self, shape: TokenizerShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or TokenizerShape()
        hidden = shape.hidden
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, hidden, 3, padding=1), ResidualBlock(hidden), nn.Conv2d(hidden, shape.width, 1)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(shape.width, hidden, 3, padding=1),
            ResidualBlock(hidden),
            nn.ConvTranspose2d(hidden, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 3, 3, padding=1),
        )
        codes = F.normalize(torch.randn(shape.codes, shape.width), dim=1)
        self.register_buffer("codes", codes)
        self.register_buffer("sums", codes / shape.codes)
        self.register_buffer("used", torch.full((shape.codes,), 1 / shape.codes))

    @property
    def codebook(self) -> Tensor:
        """The codes [V, C], of length 1 each."""
        return cast(Tensor, self.codes)

    def encode(self, pictures: Tensor) -> Tensor:
        """[B, 3, 16, 16] to maps [B, C, 8, 8]."""
        return self.encoder(pictures)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Numbers of the codes with the highest cosine: [..., C] to [...]."""
        return (F.normalize(vectors, dim=-1) @ self.codebook.T).argmax(-1)

    def embed(self, tokens: Tensor) -> Tensor:
        """Codes of one scale [B, r^2] as a map [B, C, r, r]."""
        side = round(tokens.shape[1] ** 0.5)
        return self.codebook[tokens].transpose(1, 2).unflatten(2, (side, side))

    def look_up(self, maps: Tensor) -> Looked:
        """Codes of maps [B, C, 8, 8] at every scale."""
        largest, left, said, tokens = maps.shape[-1], maps, torch.zeros_like(maps), []
        for side in self.shape.scales:
            vectors = F.adaptive_avg_pool2d(left, side)
            tokens.append(self.nearest(vectors.flatten(2).transpose(1, 2)))
            found = resized(self.embed(tokens[-1]), largest)
            said = said + found if self.shape.residual else found
            left = left - found if self.shape.residual else left
        return Looked(tokens, said)

    def tokens(self, pictures: Tensor) -> list[Tensor]:
        """Codes of pictures at every scale, each [B, r^2]."""
        return self.look_up(self.encode(pictures)).tokens

    def next_input(self, tokens: Sequence[Tensor]) -> Tensor:
        """What is known of the next scale from the codes of those before it: a map [B, C, r, r] of the next scale's size."""
        side, largest = self.shape.scales[len(tokens)], self.shape.scales[-1]
        if not self.shape.residual:
            return resized(self.embed(tokens[-1]), side)
        said = sum((resized(self.embed(each), largest) for each in tokens), torch.zeros(()))
        return F.adaptive_avg_pool2d(cast(Tensor, said), side)

    def decode(self, tokens: Sequence[Tensor]) -> Tensor:
        """Pictures [B, 3, 16, 16] of codes at every scale."""
        largest = self.shape.scales[-1]
        said = [resized(self.embed(each), largest) for each in (tokens if self.shape.residual else tokens[-1:])]
        return self.decoder(torch.stack(said).sum(0))

    # Training

    def loss(self, pictures: Tensor, *, commitment: float = 0.25, squeeze: int | None = None, generator: torch.Generator) -> Tensor:
        """Squared error of the reconstruction, and how far maps lie from their codes (squared). Moves the codes.

        squeeze: average maps down to this side first, so that coarse scales can be decoded too.
        """
        maps = self.encode(pictures)
        if squeeze is not None:
            maps = resized(F.adaptive_avg_pool2d(maps, squeeze), maps.shape[-1])
        unit = F.normalize(maps, dim=1)
        looked = self.look_up(unit)
        self._move_codes(unit, generator)
        straight = unit + (looked.map - unit).detach()
        return F.mse_loss(self.decoder(straight), pictures) + commitment * F.mse_loss(unit, looked.map.detach())

    @torch.no_grad()
    def _move_codes(self, maps: Tensor, generator: torch.Generator) -> None:
        """Codes follow the mean of what they stand for; one that hardly stands for anything becomes a vector of this batch."""
        decay, vectors = self.shape.decay, maps.permute(0, 2, 3, 1).flatten(0, 2)
        chosen = F.one_hot(self.nearest(vectors), self.shape.codes).to(vectors)
        used, sums = cast(Tensor, self.used), cast(Tensor, self.sums)
        used.mul_(decay).add_((1 - decay) * chosen.mean(0))
        sums.mul_(decay).add_((1 - decay) * chosen.T @ vectors / len(vectors))
        idle = used < REUSED / self.shape.codes
        if idle.any():
            rows = torch.randint(len(vectors), (int(idle.sum()),), generator=generator)
            sums[idle] = vectors[rows] / self.shape.codes
            used[idle] = 1 / self.shape.codes
        self.codebook.copy_(F.normalize(sums, dim=1))

    def save(self, folder: Path) -> None:
        """Write weights and sizes."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "tokenizer.safetensors")
        (folder / "tokenizer.json").write_text(json.dumps(asdict(self.shape), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ScaleTokenizer:
        """Read what `save` wrote. Raises InputError for a folder that holds no tokenizer of pictures."""
        try:
            shape = json.loads((folder / "tokenizer.json").read_text())
            model = cls(TokenizerShape(**{**shape, "scales": tuple(shape["scales"])}))
            model.load_state_dict(load_file(folder / "tokenizer.safetensors"))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{folder} holds no tokenizer of pictures: {error}; expected tokenizer.json and tokenizer.safetensors as `save` writes them"
            ) from error
        return model


class ResidualBlock(nn.Module):
    """Two convolutions beside the way straight through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def resized(maps: Tensor, side: int) -> Tensor:
    """Maps [B, C, r, r] at another size, bicubic."""
    return maps if maps.shape[-1] == side else F.interpolate(maps, size=(side, side), mode="bicubic", align_corners=False)
