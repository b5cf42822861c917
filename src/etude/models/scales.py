"""A policy that draws pictures scale by scale: all tokens of a scale at once, given the caption and the coarser scales (VAR, arXiv:2404.02905).

A sequence is the caption's places, then one block a scale. The first block is told only to start; the block of every later scale is told what the scales before it say
about it. Tokens see their own block and those before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from etude.errors import InputError
from etude.images.captions import NO_CAPTION
from etude.images.drawing import SIZE
from etude.models.caption_embedding import CaptionEmbedding, CaptionShape, plane_positions
from etude.models.picture_tokens import ScaleTokenizer


@dataclass(frozen=True)
class ScalesShape:
    """Sizes of a scale-wise transformer."""

    codes: int = 128
    code_width: int = 8
    width: int = 64
    layers: int = 3
    heads: int = 4
    expansion: int = 4
    scales: tuple[int, ...] = (1, 2, 4, 8)
    caption: CaptionShape = field(default_factory=CaptionShape)


@dataclass(frozen=True)
class Drawn:
    """Sampled pictures as tokens: at each scale their numbers, log-probabilities and entropies (nats) under what was sampled from, each [B, r^2]."""

    tokens: list[Tensor]
    logprobs: list[Tensor]
    entropies: list[Tensor]


class ScaleTransformer(nn.Module):
    """Caption and coarser scales to logits of the codes of each scale."""

    def __init__(self, shape: ScalesShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or ScalesShape()
        width = shape.width
        self.caption = CaptionEmbedding(shape.caption, width)
        # One map of the plane, in pixels, for all scales: the middle of a coarse cell lies between those of the fine cells in it.
        cells = [((row + 0.5) * SIZE / side, (column + 0.5) * SIZE / side) for side in shape.scales for row in range(side) for column in range(side)]
        self.cell_places = nn.Parameter(plane_positions(cells, width))
        self.levels = nn.Parameter(torch.randn(len(shape.scales), width) * 0.02)
        self.start = nn.Parameter(torch.zeros(width))
        self.enter = nn.Linear(shape.code_width, width)
        self.blocks = nn.ModuleList(ScaleBlock(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, shape.codes)

    def forward(self, captions: Tensor, known: Sequence[Tensor], which: Sequence[int] | None = None) -> list[Tensor]:
        """Logits [B, r^2, V] of some scales.

        captions: [B, W]. known: for each scale after the first what is known of it [B, C, r, r] (`ScaleTokenizer.next_input`), as many as there are; one more scale than
        that is predicted. which: of all scales only these are in the sequence, with one map in `known` for each of them that is not the first; None: all, in order.
        """
        scales = list(range(len(known) + 1)) if which is None else list(which)
        maps = iter(known)
        parts, levels = [self.caption(captions)], [-1] * self.shape.caption.words
        for scale in scales:
            cells = self.shape.scales[scale] ** 2
            told = self.start.expand(len(captions), cells, -1) if scale == 0 else self.enter(next(maps).flatten(2).transpose(1, 2))
            parts.append(told + self.places_of(scale) + self.levels[scale])
            levels += [scale] * cells
        order = torch.tensor(levels)
        sees = order[:, None] >= order[None, :]
        x = torch.cat(parts, dim=1)
        for block in self.blocks:
            x = block(x, sees)
        logits = self.leave(self.norm(x[:, self.shape.caption.words :]))
        return list(logits.split([self.shape.scales[scale] ** 2 for scale in scales], dim=1))

    def places_of(self, scale: int) -> Tensor:
        """Positions of a scale's cells [r^2, width]."""
        before = sum(side**2 for side in self.shape.scales[:scale])
        return self.cell_places[before : before + self.shape.scales[scale] ** 2]

    @property
    def tokens(self) -> int:
        """Tokens of a whole sequence, the caption's included."""
        return self.shape.caption.words + sum(side**2 for side in self.shape.scales)

    @torch.no_grad()
    def sample(
        self,
        tokenizer: ScaleTokenizer,
        captions: Tensor,
        generator: torch.Generator,
        *,
        given: Sequence[Tensor] = (),
        guidance: float = 1.0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> Drawn:
        """Draw every scale after the other, for captions [B, W]. given: tokens of the first scales, which are kept as they are. guidance: 1 is the caption alone; above it the
        pull away from no caption rises with the scale, from 1 to the given weight. top_k, top_p: 0 and 1 draw from all codes."""
        drawn = Drawn(list(given), [], [])
        without = torch.full_like(captions, NO_CAPTION)
        count = len(self.shape.scales)
        known = [tokenizer.next_input(drawn.tokens[: i + 1]) for i in range(min(len(given), count - 1))]
        for scale in range(len(given), count):
            logits = self(captions, known)[-1]
            if guidance != 1:
                weight = 1 + (guidance - 1) * (scale + 1) / count
                base = self(without, known)[-1]
                logits = base + weight * (logits - base)
            logprobs = truncated(logits / temperature, top_k, top_p).log_softmax(-1)
            tokens = torch.multinomial(logprobs.exp().flatten(0, 1), 1, generator=generator).view(logprobs.shape[:2])
            drawn.tokens.append(tokens)
            drawn.logprobs.append(logprobs.gather(-1, tokens[..., None])[..., 0])
            drawn.entropies.append(-(logprobs.exp() * logprobs.clamp(min=-1e4)).sum(-1))
            if scale + 1 < count:
                known.append(tokenizer.next_input(drawn.tokens))
        return drawn

    def save(self, folder: Path) -> None:
        """Write weights and sizes."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"kind": "scales", **asdict(self.shape)}, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ScaleTransformer:
        """Read what `save` wrote. Raises InputError for a folder that holds no such model."""
        try:
            config = json.loads((folder / "config.json").read_text())
            if config.pop("kind", None) != "scales":
                raise InputError(f'{folder} holds no scale-wise transformer: its config.json does not say "kind": "scales"')
            model = cls(ScalesShape(**{**config, "scales": tuple(config["scales"]), "caption": CaptionShape(**config["caption"])}))
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder} holds no scale-wise transformer: {error}; expected config.json and model.safetensors as `save` writes them") from error
        return model


class ScaleBlock(nn.Module):
    """Attention under a mask, and a feed-forward layer."""

    def __init__(self, shape: ScalesShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attend = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, shape.expansion * width), nn.GELU(), nn.Linear(shape.expansion * width, width))

    def forward(self, x: Tensor, sees: Tensor) -> Tensor:
        q, k, v = self.attend(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=sees).transpose(1, 2).flatten(2))
        return x + self.feed(self.norms[1](x))


def truncated(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits [..., V] with all but the `top_k` likeliest, and then all but the fewest likeliest that together have the probability `top_p`, at minus infinity."""
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ranked, order = logits.softmax(-1).sort(dim=-1, descending=True)
        beyond = ranked.cumsum(-1) - ranked >= top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
    return logits


def token_cross_entropy(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean over all tokens of all scales of the cross-entropy, so that the finest scale, which has most of them, weighs most."""
    flat = torch.cat([each.flatten(0, 1) for each in logits])
    return F.cross_entropy(flat, torch.cat([cast(Tensor, each).flatten() for each in targets]))
