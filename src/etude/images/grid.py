"""Sheets of pictures, and trees of them, to look at. Written with Pillow (extra `images`)."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from etude.errors import MissingExtra

ENLARGED = 4
GAP = 2
GROUND = 255
Page = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def save_grid(rows: Tensor, path: Path) -> None:
    """Write pictures [R, C, 3, S, S] from -1 to 1 as one PNG, R rows of C, each pixel four wide. Raises MissingExtra without Pillow."""
    path.write_bytes(png(sheet(rows)))


def sheet(rows: Tensor) -> Page:
    """The same as an array of pixels [H, W, 3]."""
    large = pixels(rows).repeat(ENLARGED, 2).repeat(ENLARGED, 3)
    down, across, side = large.shape[:3]
    page = np.full((down * (side + GAP) - GAP, across * (side + GAP) - GAP, 3), GROUND, dtype=np.uint8)
    for r in range(down):
        for c in range(across):
            page[r * (side + GAP) : r * (side + GAP) + side, c * (side + GAP) : c * (side + GAP) + side] = large[r, c]
    return page


def save_tree(caption: str, depths: Sequence[int], nodes: Sequence[tuple[Tensor, Tensor, Sequence[int]]], path: Path) -> None:
    """Write a tree of pictures as JSON: for each of some depths its nodes' pictures [N, 3, S, S], values [N], and the places of their parents in the depth before."""
    levels: list[dict[str, Any]] = []
    for depth, (pictures, values, parents) in zip(depths, nodes, strict=True):
        drawn = [base64.b64encode(png(picture)).decode() for picture in pixels(pictures)]
        levels.append({"depth": depth, "nodes": [{"png": p, "value": float(v), "parent": at} for p, v, at in zip(drawn, values, parents, strict=True)]})
    path.write_text(json.dumps({"caption": caption, "levels": levels}) + "\n")


def pixels(pictures: Tensor) -> Page:
    """Pictures [..., 3, S, S] from -1 to 1 as bytes [..., S, S, 3]."""
    return np.moveaxis(((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy(), -3, -1)


def require_pillow() -> None:
    """Raises MissingExtra where nothing could be written."""
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtra("pillow", "images", "showing drawings")


def png(page: Page) -> bytes:
    """Pixels [H, W, 3] as a PNG file. Raises MissingExtra without Pillow."""
    require_pillow()
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(page)).save(file, "PNG")
    return file.getvalue()
