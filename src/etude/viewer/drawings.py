"""Drawings in a run's report: sheets of what was drawn at some evaluations, and trees of pictures that share their beginnings."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_SHEETS = 4
MOST_TREES = 2


@dataclass(frozen=True)
class Sheet:
    """What was drawn at one step, a row a caption, as the address of a picture."""

    step: int
    uri: str


@dataclass(frozen=True)
class PictureNode:
    """A picture of a tree: its address, what came of it on average, and how many rows high it stands."""

    uri: str
    value: float
    rows: int


@dataclass(frozen=True)
class PictureTree:
    """A tree at one step: a column a depth, the root first; a node is as high as its leaves."""

    step: int
    caption: str
    depths: list[int]
    columns: list[list[PictureNode]]


def sheets(folder: Path) -> tuple[list[str], list[Sheet]]:
    """Captions, and the first, the last and some sheets between of a folder of drawings; empty where there are none."""
    files = _spread(sorted(folder.glob("step-*.png")), MOST_SHEETS)
    try:
        captions = [str(caption) for caption in json.loads((folder / "captions.json").read_text())]
    except (OSError, ValueError, TypeError):
        captions = []
    return captions, [Sheet(_step(file), "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()) for file in files]


def picture_trees(folder: Path) -> list[PictureTree]:
    """The first and the last tree of a folder of drawings. One that cannot be read is left out."""
    found = []
    for file in _spread(sorted(folder.glob("tree-*.json")), MOST_TREES):
        try:
            plain = json.loads(file.read_text())
            found.append(_tree(_step(file), plain))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue
    return found


def _tree(step: int, plain: Mapping[str, Any]) -> PictureTree:
    levels: Sequence[Mapping[str, Any]] = plain["levels"]
    rows = [1] * len(levels[-1]["nodes"])
    heights = [rows]
    for level, above in zip(reversed(levels[1:]), reversed(levels[:-1]), strict=True):
        sums = [0] * len(above["nodes"])
        for node, high in zip(level["nodes"], heights[0], strict=True):
            sums[node["parent"]] += high
        heights.insert(0, sums)
    columns = [
        [PictureNode(f"data:image/png;base64,{node['png']}", float(node["value"]), high) for node, high in zip(level["nodes"], high_of, strict=True)]
        for level, high_of in zip(levels, heights, strict=True)
    ]
    return PictureTree(step, str(plain["caption"]), [int(level["depth"]) for level in levels], columns)


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    if len(files) <= most:
        return list(files)
    return [files[round(i * (len(files) - 1) / (most - 1))] for i in range(most)]


def _step(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])
