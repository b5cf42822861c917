"""Whether a picture shows what its caption says, found out by measuring pixels: no network that could be fooled in ways of its own.

In each quarter: is anything there (enough pixels far from the background), of which colour (the nearest one of most pixels of its core), of which shape (the drawn
mask that its outline correlates with best). Each place has to be empty or not as the caption says, and each object to have its colour and its shape; the share of
these checks that a picture passes is its soft reward, and passing all of them the strict one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from etude.images.captions import COLOURS, KINDS, NOTHING, PLACES
from etude.images.drawing import PAINT, QUARTER, masks

BACKGROUND = -0.8
"""The grey that a background is taken to have. One that is much lighter counts as an object everywhere."""
PRESENT, CORE = 0.75, 1.15
"""Distances from the background, in colour space: of a pixel that something is on, and of one in its core."""
LEAST_AREA = 8
COLOUR_SHARE = 0.7
CORRELATION = 0.85
FULL = 1.5
"""The distance that counts as wholly covered."""
UNKNOWN = -1
"""Colour or shape that is not clear."""
UNRECOGNISED = 99
"""In place of a kind, where something is present whose colour or shape is not clear."""


@dataclass(frozen=True)
class Seen:
    """What is in the places of pictures: all [B, 4]. colour and shape are UNKNOWN where they are not clear; where nothing is present they mean nothing."""

    present: Tensor
    colour: Tensor
    shape: Tensor

    @property
    def kinds(self) -> Tensor:
        """The kind in each place: 0 for nothing, UNRECOGNISED for what is not clear."""
        clear = (self.colour >= 0) & (self.shape >= 0)
        kinds = torch.where(clear, KINDS.start + self.shape * len(COLOURS) + self.colour, UNRECOGNISED)
        return torch.where(self.present, kinds, NOTHING)


@dataclass(frozen=True)
class Alignment:
    """How well pictures fit their captions: soft in [0, 1] and strict in {0, 1}, each [B]."""

    soft: Tensor
    strict: Tensor


def look(pictures: Tensor) -> Seen:
    """What can be seen in pictures [B, 3, 16, 16]."""
    quarters = torch.stack([pictures[..., r : r + QUARTER, c : c + QUARTER] for r in (0, QUARTER) for c in (0, QUARTER)], dim=1)
    distance = (quarters - BACKGROUND).norm(dim=2).flatten(2)
    core = distance > CORE

    paint = torch.from_numpy(PAINT).to(pictures)
    likeness = torch.einsum("bpcyx,kc->bpkyx", quarters, paint).flatten(3) - paint.square().sum(1)[:, None] / 2
    votes = torch.nn.functional.one_hot(likeness.argmax(2), len(COLOURS)) * core[..., None]
    most, colour = votes.sum(2).max(2)
    colour = torch.where(most > COLOUR_SHARE * core.sum(2).clamp(min=1), colour, UNKNOWN)

    templates = outlines().to(pictures)
    outline = (distance / FULL).clamp(0, 1)
    outline = outline - outline.mean(2, keepdim=True)
    outline = outline / outline.norm(dim=2, keepdim=True).clamp(min=1e-6)
    correlation = torch.einsum("bpn,psqn->bpsq", outline, templates).amax(3)
    best, shape = correlation.max(2)
    shape = torch.where(best > CORRELATION, shape, UNKNOWN)
    return Seen(present=(distance > PRESENT).sum(2) >= LEAST_AREA, colour=colour, shape=shape)


def alignment(pictures: Tensor, captions: Tensor) -> Alignment:
    """How well pictures [B, 3, 16, 16] fit captions [B, 4] with places."""
    seen = look(pictures)
    wanted = captions != NOTHING
    shape, colour = (captions - KINDS.start) // len(COLOURS), (captions - KINDS.start) % len(COLOURS)
    found = seen.present & wanted
    passed = (seen.present == wanted).sum(1) + (found & (seen.colour == colour)).sum(1) + (found & (seen.shape == shape)).sum(1)
    checks = len(PLACES) + 2 * wanted.sum(1)
    return Alignment(soft=passed / checks, strict=(passed == checks).float())


def alignment_anywhere(pictures: Tensor, captions: Tensor) -> Alignment:
    """The same for captions without places [B, 4]: the kinds that are seen, in descending order, against those that are wanted. soft is the share of equal entries."""
    equal = look(pictures).kinds.sort(dim=1, descending=True).values == captions.sort(dim=1, descending=True).values
    return Alignment(soft=equal.float().mean(1), strict=equal.all(1).float())


@cache
def outlines() -> Tensor:
    """Each place's masks in its own quarter, of mean 0 and length 1: [places, shapes, poses, 64]."""
    bank = torch.from_numpy(masks())
    own = [bank[place, :, :, r : r + QUARTER, c : c + QUARTER].flatten(2) for place, (r, c) in enumerate((r, c) for r in (0, QUARTER) for c in (0, QUARTER))]
    centred = torch.stack([quarter - quarter.mean(2, keepdim=True) for quarter in own])
    return centred / centred.norm(dim=3, keepdim=True)
