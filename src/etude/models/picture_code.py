"""What every tokenizer of pictures offers whose tokens are one short sequence: pictures to tokens, tokens to pictures, and what it learns from.

`load_picture_code` reads whichever one a folder holds.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from etude.errors import InputError, nearest
from etude.models.vector_quantiser import Quantised

FOLDER = "picture-code"
"""The folder of a tokenizer beside the language model that writes its tokens."""
PATCHES = 16
WEIGHTS, SIZES = "code.safetensors", "code.json"


@dataclass(frozen=True)
class CodeLoss:
    """What a tokenizer is off by on a batch: its reconstruction (what that is, is the tokenizer's own), and what looking up gave."""

    reconstruction: Tensor
    quantised: Quantised

    def total(self, *, commitment: float = 1.0, diversity: float = 1.0) -> Tensor:
        """The sum that is minimised."""
        return self.reconstruction + commitment * self.quantised.commitment + diversity * self.quantised.diversity


class PictureCode(nn.Module):
    """A tokenizer: `count` tokens a picture, each one of `codes`."""

    kind: ClassVar[str]
    shape: Any
    count: int
    codes: int

    @abstractmethod
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 3, 16, 16] to tokens [B, K]."""

    @abstractmethod
    def render(self, tokens: Tensor) -> Tensor:
        """Tokens [B, K] to pictures [B, 3, 16, 16], in one step and without chance."""

    @abstractmethod
    def sketch(self, tokens: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures [B, 3, 16, 16] from some of their tokens [B, K]: those that are kept [K]."""

    @property
    def tokens(self) -> int:
        """Tokens, of both kinds, that one picture is to its networks: patches and codes."""
        return PATCHES + self.count

    @abstractmethod
    def loss(self, pictures: Tensor, generator: torch.Generator) -> CodeLoss:
        """What it is off by on pictures [B, 3, 16, 16] to learn from. Moves the codes."""

    def save(self, folder: Path) -> None:
        """Write weights and sizes."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / WEIGHTS)
        (folder / SIZES).write_text(json.dumps({"kind": self.kind, **asdict(self.shape)}, indent=1) + "\n")


def load_picture_code(folder: Path) -> PictureCode:
    """Read what `save` wrote, whichever tokenizer it is. Raises InputError for a folder that holds none."""
    from etude.models.ordered_tokens import OrderedShape, OrderedTokenizer
    from etude.models.spatial_tokens import SpatialShape, SpatialTokenizer

    known = {"ordered": (OrderedTokenizer, OrderedShape), "spatial": (SpatialTokenizer, SpatialShape)}
    try:
        sizes = json.loads((folder / SIZES).read_text())
        kind = sizes.pop("kind", None)
        if kind not in known:
            raise InputError(f"{folder} holds a tokenizer of pictures of the kind {kind!r}.{nearest(str(kind), known)} Expected {', '.join(known)}")
        made, shape = known[kind]
        code = made(shape(**{name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}))
        code.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder} holds no tokenizer of pictures that can be read: {error}; expected {SIZES} and {WEIGHTS} as `save` writes them") from error
    return code.eval().requires_grad_(False)
