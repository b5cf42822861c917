"""Sheets of pictures, to look at. Written with Pillow (extra `images`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from etude.errors import MissingExtra

ENLARGED = 4
GAP = 2
GROUND = 255


def save_grid(rows: Tensor, path: Path) -> None:
    """Write pictures [R, C, 3, S, S] from -1 to 1 as one PNG, R rows of C, each pixel four wide. Raises MissingExtra without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "images", "showing drawings") from error
    Image.fromarray(sheet(rows)).save(path)


def sheet(rows: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The same as an array of pixels [H, W, 3]."""
    pixels = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy().transpose(0, 1, 3, 4, 2)
    large = pixels.repeat(ENLARGED, 2).repeat(ENLARGED, 3)
    side = large.shape[2]
    down, across = large.shape[0], large.shape[1]
    page = np.full((down * (side + GAP) - GAP, across * (side + GAP) - GAP, 3), GROUND, dtype=np.uint8)
    for r in range(down):
        for c in range(across):
            page[r * (side + GAP) : r * (side + GAP) + side, c * (side + GAP) : c * (side + GAP) + side] = large[r, c]
    return page
