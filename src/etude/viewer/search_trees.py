"""The tree of a search, a row a node: who came of whom, how each did itself, and how it and all its descendants did. Drawn by the report and by the terminal.

A row stands below its parent and is moved in by its depth. Of large trees those nodes are shown that most trials went to, with all that they came of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from etude.viewer.numbers import number, percent
from etude.viewer.samples import readable

ROW, TOP, LEFT, INDENT, MOST_INDENT = 24, 30, 14, 16, 320
CHARACTER, MOST_CHARACTERS = 7.0, 60
BAR, COLUMN = 70, 190
MOST_ROWS, MOST_DETAILS = 150, 40
SMALLEST, LARGEST = 3.0, 8.0
"""Radius of a node without trials, and of the one with most."""


@dataclass(frozen=True)
class Bar:
    """Trials of a node or a clade: how much of the bar is filled (None: no bar), and what stands beside it."""

    x: float
    fill: float | None
    text: str


@dataclass(frozen=True)
class Row:
    """One node: where its dot is and how large and full, the lines to its parents, what is said of it."""

    number: int
    x: float
    y: float
    radius: float
    fill: float
    link: str
    further: list[str]
    label: str
    label_x: float
    own: Bar
    clade: Bar
    chosen: bool
    details: str


@dataclass(frozen=True)
class DrawnSearch:
    """A whole tree. hidden: nodes that are left out. own_x, clade_x: where the columns begin."""

    title: str
    step: int
    rows: list[Row]
    hidden: int
    width: float
    height: float
    own_x: float
    clade_x: float
    description: str


def drawn_searches(content: Mapping[str, Any]) -> list[DrawnSearch]:
    """The trees of a run's search.json, drawn; those that cannot be read are left out."""
    step = content.get("step")
    found = [draw_search(tree, step if isinstance(step, int) else 0) for tree in content.get("trees") or []]
    return [drawn for drawn in found if drawn is not None]


def draw_search(record: Mapping[str, Any], step: int = 0) -> DrawnSearch | None:
    """A tree as `etude.search.record.tree_record` gives it; None for anything else."""
    try:
        nodes = list(record["nodes"])
        shown = _in_rows(nodes, MOST_ROWS)
        depths = _depths(nodes)
        values = [node[kind]["value"] for node in nodes for kind in ("own", "clade")]
        shares = all(0 <= value <= 1 for value in values)
        most = max((node["own"]["visits"] for node in nodes), default=0)
        indent = min(INDENT, MOST_INDENT / max(1, *depths))
        places = {n: (LEFT + indent * depths[n], TOP + ROW * (i + 0.5)) for i, n in enumerate(shown)}
        labels = {n: _label(nodes[n]) for n in shown}
        own_x = max(places[n][0] + 2 * LARGEST + CHARACTER * len(labels[n]) for n in shown) + 24
        clade_x = own_x + COLUMN
        rows = [_row(nodes[n], places, labels[n], own_x, clade_x, most, shares) for n in shown]
        chosen = ", ".join(f"node {row.number}: {row.own.text}" for row in rows if row.chosen)
        title = readable(str(record["title"]), 200)
        description = f"Tree of a search, {title}, {len(nodes)} nodes" + (f"; settled on {chosen}" if chosen else "")
        return DrawnSearch(title, step, rows, len(nodes) - len(shown), clade_x + COLUMN, TOP + ROW * len(rows) + 6, own_x, clade_x, description)
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def tree_lines(record: Mapping[str, Any], most: int) -> list[Text]:
    """A tree as lines for a terminal, at most so many; the last one says how many nodes are left out."""
    nodes = list(record["nodes"])
    shown = _in_rows(nodes, most if len(nodes) <= most else most - 1)
    depths = _depths(nodes)
    shares = all(0 <= node[kind]["value"] <= 1 for node in nodes for kind in ("own", "clade"))
    lines = []
    for n in shown:
        node = nodes[n]
        line = Text("  " * depths[n], no_wrap=True, overflow="ellipsis")
        line.append("● " if node["chosen"] else "○ ", style="bold green" if node["chosen"] else "dim")
        head, _, said = _label(node).partition(" · ")
        line.append(head, style="bold")
        line.append(f"  {_trials(node['own'], shares)}", style="green" if node["chosen"] else "")
        if node["clade"] != node["own"]:
            line.append(f" ({_trials(node['clade'], shares)} with descendants)", style="dim")
        line.append(f"  {said}", style="" if node["chosen"] else "dim")
        lines.append(line)
    if len(shown) < len(nodes):
        lines.append(Text(f"{len(nodes) - len(shown)} more nodes", style="dim"))
    return lines


def _in_rows(nodes: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """Numbers of the nodes to show, each above those that came of it. A parent has all the trials of its clade, so that it is shown wherever a child of it is."""
    wanted = sorted(range(len(nodes)), key=lambda n: (-nodes[n]["clade"]["visits"], n))[: max(1, most)]
    kept = set(wanted)
    for n, node in enumerate(nodes):
        if node["chosen"]:
            kept |= set(_path(nodes, n))
    children: dict[int, list[int]] = {}
    for n in sorted(kept, reverse=True):
        if nodes[n]["parents"]:
            children.setdefault(nodes[n]["parents"][0], []).append(n)
    rows, waiting = list[int](), [0]
    while waiting:
        n = waiting.pop()
        rows.append(n)
        waiting += children.get(n, [])
    return rows


def _path(nodes: Sequence[Mapping[str, Any]], n: int) -> list[int]:
    found = [n]
    while nodes[found[-1]]["parents"]:
        above = nodes[found[-1]]["parents"][0]
        if not 0 <= above < found[-1]:
            raise ValueError("a node comes of a later one")
        found.append(above)
    return found


def _depths(nodes: Sequence[Mapping[str, Any]]) -> list[int]:
    return [len(_path(nodes, n)) - 1 for n in range(len(nodes))]


def _label(node: Mapping[str, Any]) -> str:
    said = " ".join(readable(str(node["label"]), 200).split())
    text = f"{node['number']} · {said}" if said else str(node["number"])
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _trials(trials: Mapping[str, Any], shares: bool) -> str:
    """'62 % of 60': the mean and of how many."""
    if not trials["visits"]:
        return "not tried"
    return f"{percent(trials['value']) if shares else number(trials['value'])} of {trials['visits']}"


def _row(node: Mapping[str, Any], places: Mapping[int, tuple[float, float]], label: str, own_x: float, clade_x: float, most: int, shares: bool) -> Row:
    x, y = places[node["number"]]
    link = ""
    if node["parents"]:
        above, top = places[node["parents"][0]]
        link = f"M{above:.1f} {top:.1f}V{y:.1f}H{x:.1f}"
    others = node["parents"][1:]
    further = [f"M{places[n][0]:.1f} {places[n][1]:.1f}Q{x + 40:.1f} {(places[n][1] + y) / 2:.1f} {x:.1f} {y:.1f}" for n in others if n in places]
    own, clade = (
        Bar(at, trials["value"] if shares and trials["visits"] else None, _trials(trials, shares))
        for at, trials in ((own_x, node["own"]), (clade_x, node["clade"]))
    )
    return Row(
        number=node["number"],
        x=x,
        y=y,
        radius=SMALLEST + (LARGEST - SMALLEST) * math.sqrt(node["own"]["visits"] / most) if most else SMALLEST,
        fill=node["own"]["value"] if shares else 1.0,
        link=link,
        further=further,
        label=label,
        label_x=x + LARGEST + 6,
        own=own,
        clade=clade,
        chosen=bool(node["chosen"]),
        details=readable(str(node["details"]), 20_000),
    )
