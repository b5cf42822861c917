"""Trees of attempts as geometry: what the report draws as inline SVG.

A row is a branch, a column a token position, so that a branch stands below the words that it might have been. Each row holds the branch's own tokens, shaded by the
entropy of the distribution that they were taken from; a line leads up to where it left its parent. Of long trees the columns around the forks are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unicodedata import east_asian_width

from etude.viewer.numbers import number
from etude.viewer.samples import mark_of, readable

ROW, CELL, TOP, LEFT = 24, 18, 8, 22
CHARACTER = 7.3
MOST_CHARACTERS, MOST_COLUMNS, MOST_BRANCHES = 12, 90, 40
BEFORE, AFTER = 2, 8
"""Columns that are shown before and after a fork where not all are."""
SHADE = 0.75
"""Opacity of the highest entropy's colour."""
SIGNS = {"right": "✓", "partly": "◐", "wrong": "✗", "unjudged": "·"}


@dataclass(frozen=True)
class Cell:
    """One token: its place, its text, how much colour it has, and what the pointer says of it."""

    x: float
    y: float
    width: float
    text: str
    shade: float
    title: str


@dataclass(frozen=True)
class Row:
    """One branch: its tokens, how it was opened and how it ended. `kind` is `right`, `partly`, `wrong`, `unjudged` or `pruned`."""

    kind: str
    cells: list[Cell]
    link: str
    dot: tuple[float, float] | None
    end: tuple[float, float]
    sign: str
    said: str
    about: str


@dataclass(frozen=True)
class DrawnTree:
    """A whole tree, with what stands above it."""

    step: int
    task: str
    prompt: str
    answer: str
    facts: list[str]
    width: float
    height: float
    rows: list[Row]
    gaps: list[tuple[float, float]]
    description: str


@dataclass
class _Branch:
    number: int
    parent: int | None
    fork: int
    texts: list[str]
    entropies: list[float]
    tokens: int
    record: Mapping[str, Any]
    children: list[_Branch] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.fork + len(self.texts)


def chosen_trees(records: Sequence[Mapping[str, Any]]) -> list[DrawnTree]:
    """The first, the middle and the last tree of a run, drawn."""
    places = sorted({0, len(records) // 2, len(records) - 1}) if records else []
    return [tree for i in places if (tree := draw_tree(records[i])) is not None]


def draw_tree(record: Mapping[str, Any]) -> DrawnTree | None:
    """A line of trees.jsonl as a picture; None where it is not one."""
    try:
        return _draw(record)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _draw(record: Mapping[str, Any]) -> DrawnTree:
    everything = [_read(b) for b in record["branches"]]
    ordered = _in_rows(everything)[:MOST_BRANCHES]
    shown = _columns(ordered)
    widths = {c: max(_width(b.texts[c - b.fork]) for b in ordered if b.fork <= c < b.end) for c in shown}
    starts, right, gaps = _place(shown, widths, max(b.end for b in ordered))
    most = max((e for b in ordered for e in b.entropies), default=0.0)
    row_of = {b.number: i for i, b in enumerate(ordered)}
    rows = [_row(b, row_of, starts, widths, right, most) for b in ordered]
    label = record.get("label")
    kept = [b for b in everything if not b.record["pruned"]]
    pruned = len(everything) - len(kept)
    facts = [f"{len(kept)} attempts"]
    facts += [f"{pruned} pruned"] if pruned else []
    facts += [f"forks without room: {record['suppressed']}"] if record.get("suppressed") else []
    facts += [f"not drawn: {len(everything) - len(ordered)} branches"] if len(everything) > len(ordered) else []
    facts += [f"voted answer: {readable(label, 60)}"] if label is not None else []
    facts += [f"at most {number(most)} nats a token"] if most else []
    height = TOP + ROW * len(rows) + 4
    longest = max(r.end[0] + CHARACTER * (len(r.sign) + len(r.said) + len(r.about) + 5) for r in rows)
    return DrawnTree(
        step=int(record["step"]),
        task=str(record.get("task_id", "")),
        prompt=readable(record.get("prompt")),
        answer=readable(record.get("answer")),
        facts=facts,
        width=math.ceil(longest),
        height=height,
        rows=rows,
        gaps=[(x, TOP + ROW * i + ROW / 2) for x, column in gaps for i, b in enumerate(ordered) if b.fork <= column < b.end],
        description=f"Tree of {len(everything)} branches, {pruned} of them pruned: " + "; ".join(f"{r.sign} {r.said}" for r in rows[:12]),
    )


def _read(branch: Mapping[str, Any]) -> _Branch:
    texts, entropies = [_shown(str(t)) for t in branch["texts"]], [float(e) for e in branch["entropies"]]
    if not texts or len(texts) != len(entropies) or branch["fork"] < 0:
        raise ValueError("a branch has no tokens, or another number of entropies")
    return _Branch(int(branch["number"]), branch["parent"], int(branch["fork"]), texts, entropies, int(branch.get("tokens", len(texts))), branch)


def _shown(text: str) -> str:
    """A token's text in its cell: line breaks visible, surrounding spaces left out, cut when long."""
    text = readable(text.replace("\n", "↵").strip() or ("␣" if text else ""))
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _width(text: str) -> float:
    wide = sum(east_asian_width(c) in "WF" for c in text)
    return CHARACTER * max(1, len(text) + wide) + 6


def _in_rows(branches: Sequence[_Branch]) -> list[_Branch]:
    """Each branch above those that left it, the latest of them first, so that no line crosses a row."""
    by_number = {b.number: b for b in branches}
    for branch in branches:
        if branch.parent is not None:
            by_number[branch.parent].children.append(branch)
    rows: list[_Branch] = []
    waiting = [b for b in reversed(branches) if b.parent is None]
    while waiting:
        branch = waiting.pop()
        rows.append(branch)
        # Taken from the end: the latest fork comes first, and of equals the one that was opened first.
        waiting += sorted(branch.children, key=lambda b: (b.fork, -b.number))
    if len(rows) != len(branches):
        raise ValueError("a branch has no way back to the prompt")
    return rows


def _columns(branches: Sequence[_Branch]) -> list[int]:
    """Positions that are shown: all, or in long trees those about the forks, and the first and last ones."""
    end = max(b.end for b in branches)
    if end <= MOST_COLUMNS:
        return list(range(end))
    forks = sorted({b.fork for b in branches})
    after = AFTER
    while True:
        near = {c for f in forks for c in range(max(0, f - BEFORE), f + after)} | set(range(4)) | set(range(end - 2, end))
        if len(near) <= 2 * MOST_COLUMNS or after == 1:
            return sorted(c for c in near if c < end)
        after -= 1


def _place(shown: Sequence[int], widths: Mapping[int, float], end: int) -> tuple[dict[int, float], dict[int, float], list[tuple[float, int]]]:
    """Left edges of the shown columns; where a row that ends after a column has its right edge; and gaps: (x, a column that is left out there)."""
    starts: dict[int, float] = {}
    right: dict[int, float] = {}
    gaps: list[tuple[float, int]] = []
    x = float(LEFT)
    before = -1
    for column in [*shown, end]:
        if column > before + 1:
            gaps.append((x + 12, before + 1))
            x += 24
            right.update(dict.fromkeys(range(before + 1, column), x))
        if column < end:
            starts[column] = x
            x += widths[column] + 2
            right[column] = x
        before = column
    return starts, right, gaps


def _row(branch: _Branch, row_of: Mapping[int, int], starts: Mapping[int, float], widths: Mapping[int, float], right: Mapping[int, float], most: float) -> Row:
    y = TOP + ROW * row_of[branch.number]
    cells = []
    for i, (text, entropy) in enumerate(zip(branch.texts, branch.entropies, strict=True)):
        column = branch.fork + i
        if column in starts:
            shade = SHADE * max(0.0, entropy) / most if most > 0 else 0.0
            cells.append(Cell(starts[column], y, widths[column], text, round(shade, 3), f"token {column + 1}: {number(entropy)} nats"))
    middle = y + CELL / 2
    left = starts.get(branch.fork, right[branch.fork])
    dot = None
    if branch.parent is None:
        link = f"M{LEFT - 14} {TOP + CELL / 2:.1f}V{middle:.1f}H{left - 2:.1f}"
    else:
        above = TOP + ROW * row_of[branch.parent] + CELL
        link, dot = f"M{left - 1:.1f} {above:.1f}V{middle:.1f}h1", (left - 1, float(above))
    record = branch.record
    about = str(record.get("opened") or "")
    end = (right[branch.end - 1] + 6, middle)
    if record["pruned"]:
        return Row("pruned", cells, link, dot, end, "✂", readable(record["pruned"], 60), about)
    kind = mark_of(record.get("correct"))
    answer, reward = record.get("answer"), record.get("reward")
    said = readable(answer, 40) if answer is not None else "no answer"
    if isinstance(reward, (int, float)) and reward != record.get("correct"):
        said += f", reward {number(float(reward))}"
    said += f", {branch.tokens - len(branch.texts)} more tokens" if branch.tokens > len(branch.texts) else ""
    return Row(kind, cells, link, dot, end, SIGNS[kind], said, about)
