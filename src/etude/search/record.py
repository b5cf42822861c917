"""A search's tree as plain values for whoever shows it: the live table, the report, and `RUN/search.json`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from etude.search.tree import Node, Statistics, Tree


def tree_record(
    tree: Tree,
    title: str,
    *,
    label: Callable[[Node], str],
    details: Callable[[Node], str] = lambda node: "",
    chosen: Sequence[int] = (),
) -> dict[str, Any]:
    """The tree with what a person wants to see of each node, as plain JSON values.

    title: what was searched. label: a node in a few words. details: more of it (a diff, a text), shown when asked for. chosen: nodes that the search has settled on.
    `own` and `clade` are trials, or values that came back, and their mean: of the node itself, and of it and all its descendants.
    """
    return {
        "title": title,
        "nodes": [
            {
                "number": node.number,
                "parents": list(node.parents),
                "label": label(node),
                "details": details(node),
                "own": _plain(node.own),
                "clade": _plain(node.statistics),
                "terminal": node.terminal,
                "chosen": node.number in chosen,
            }
            for node in tree.nodes
        ],
    }


def _plain(statistics: Statistics) -> dict[str, float]:
    return {"visits": statistics.visits, "value": statistics.value}
