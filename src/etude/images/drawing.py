"""Pictures of the world: 16 x 16 pixels of red, green and blue from -1 to 1, drawn from a caption with a little chance in everything that the caption leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from etude.images.captions import COLOURS, NOTHING, PLACES, SHAPES

SIZE = 16
QUARTER = SIZE // 2
CENTRES = ((3.5, 3.5), (3.5, 11.5), (11.5, 3.5), (11.5, 11.5))
"""Row and column of the middle of each place."""
PAINT = np.array([(1, -0.8, -0.8), (-0.8, 0.8, -0.8), (-0.7, -0.5, 1), (1, 0.9, -0.8), (0.9, -0.7, 0.9), (-0.8, 0.9, 0.9)], dtype=np.float32)
"""Each colour as red, green and blue."""

SHIFTS = (-0.7, 0.0, 0.7)
RADII = (2.6, 3.0, 3.4)
POSES = [(down, right, radius) for down in SHIFTS for right in SHIFTS for radius in RADII]
"""How far an object lies from the middle of its place, and how large it is."""
GREY = (-0.95, -0.65)
PAINT_NOISE = 0.06
PIXEL_NOISE = 0.03
SUPERSAMPLING = 4

Pixels = NDArray[np.float32]


def draw(captions: Sequence[Sequence[int]], random: Generator) -> Pixels:
    """Pictures of captions [B, 4]: [B, 3, 16, 16]. The background's grey, each object's pose and exact colour, and the noise of pixels are drawn from `random`."""
    wanted = np.asarray(captions, dtype=np.int64).reshape(-1, len(PLACES))
    count = len(wanted)
    pictures = np.broadcast_to(random.uniform(*GREY, size=(count, 1, 1, 1)), (count, 3, SIZE, SIZE)).astype(np.float32)
    poses = random.integers(len(POSES), size=wanted.shape)
    tints = random.normal(scale=PAINT_NOISE, size=(*wanted.shape, 3)).astype(np.float32)
    for place in range(len(PLACES)):
        rows = np.flatnonzero(wanted[:, place] != NOTHING)
        shapes, colours = shape_and_colour_of(wanted[rows, place])
        cover = masks()[place, shapes, poses[rows, place]][:, None]
        paint = (PAINT[colours] + tints[rows, place])[:, :, None, None]
        pictures[rows] = (1 - cover) * pictures[rows] + cover * paint
    pictures += random.normal(scale=PIXEL_NOISE, size=pictures.shape).astype(np.float32)
    return pictures.clip(-1, 1)


def shape_and_colour_of(kinds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shapes and colours of many kinds."""
    return divmod(kinds - 1, len(COLOURS))


@cache
def masks() -> Pixels:
    """Which share of each pixel an object covers: [places, shapes, poses, 16, 16]."""
    steps = (np.arange(SIZE * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    bank = np.empty((len(PLACES), len(SHAPES), len(POSES), SIZE, SIZE), dtype=np.float32)
    for place, (row, column) in enumerate(CENTRES):
        for pose, (down, right, radius) in enumerate(POSES):
            y, x = steps[:, None] - row - down, steps[None, :] - column - right
            inside = (
                y**2 + x**2 <= radius**2,
                (abs(y) <= 0.86 * radius) & (abs(x) <= 0.86 * radius),
                (-radius <= y) & (y <= 0.8 * radius) & (abs(x) <= 0.62 * (y + radius)),
                (abs(y) <= radius) & (abs(x) <= radius) & ((abs(y) <= 0.33 * radius) | (abs(x) <= 0.33 * radius)),
            )
            for shape, covered in enumerate(inside):
                bank[place, shape, pose] = covered.reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING).mean((1, 3))
    return bank
