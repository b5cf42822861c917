"""The tree of a search: nodes with plain states, statistics that nobody else can change, and what is closed to further search.

A node is reached from its parent by one action. What an action is, and what a state holds, is the search's business; the tree only asks that states are plain JSON
values, so that it can be written to a file and read again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.errors import InputError


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of a node: visits N and the sum W of the values that came back through it. They are never changed, only replaced, so that no two nodes share them."""

    visits: int = 0
    total: float = 0.0

    @property
    def value(self) -> float:
        """W / N; 0 without a visit."""
        return self.total / self.visits if self.visits else 0.0

    def seen(self, value: float) -> Statistics:
        """With one more value."""
        return Statistics(self.visits + 1, self.total + value)


@dataclass(slots=True)
class Node:
    """One state of a search.

    parent, children: numbers in the tree. depth: actions from the root. prior: how likely the policy finds the action that leads here (PUCT). terminal: nothing comes
    after it. closed: there is nothing left to search below it, since it is terminal or all its children are closed.
    """

    number: int
    parent: int | None
    depth: int
    state: Mapping[str, Any]
    prior: float = 1.0
    terminal: bool = False
    closed: bool = False
    statistics: Statistics = Statistics()
    children: list[int] = field(default_factory=list)


class Tree:
    """Nodes by number, the root being 0."""

    def __init__(self, state: Mapping[str, Any], *, terminal: bool = False) -> None:
        self.nodes = [Node(0, None, 0, copy.deepcopy(dict(state)), terminal=terminal, closed=terminal)]

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def expand(self, parent: int, states: Sequence[Mapping[str, Any]], *, terminal: Sequence[bool], priors: Sequence[float] | None = None) -> list[Node]:
        """Give a node its children, once. States are copied. A node without any is closed. Raises InputError for one that is terminal or has children."""
        above = self.nodes[parent]
        if above.terminal or above.children:
            raise InputError(f"node {parent} of the tree is terminal or has children already; expected one that the search has not expanded")
        weights = priors if priors is not None else [1.0] * len(states)
        made = [
            Node(len(self.nodes) + i, parent, above.depth + 1, copy.deepcopy(dict(state)), prior, end, end)
            for i, (state, end, prior) in enumerate(zip(states, terminal, weights, strict=True))
        ]
        self.nodes += made
        above.children = [node.number for node in made]
        self._close_from(above)
        return made

    def record(self, number: int, value: float) -> None:
        """Send a value from a node up to the root: each on the way counts one more visit."""
        for node in self.path(number):
            node.statistics = node.statistics.seen(value)

    def path(self, number: int) -> list[Node]:
        """The nodes from the root to one of them, both included."""
        found: list[Node] = []
        at: int | None = number
        while at is not None:
            found.append(self.nodes[at])
            at = found[-1].parent
        return found[::-1]

    def children(self, number: int) -> list[Node]:
        return [self.nodes[child] for child in self.nodes[number].children]

    def ends(self) -> list[Node]:
        """The terminal nodes, in the order in which they were found."""
        return [node for node in self.nodes if node.terminal]

    def view(self, label: Callable[[Node], str], *, depth: int = 1_000_000) -> str:
        """The tree as text, a line a node: its label, visits and value, and whether it is terminal (`.`), closed (`-`) or open (`+`). depth: nodes below are left out."""
        lines: list[str] = []
        for node in self._walk(depth):
            mark = "." if node.terminal else "-" if node.closed else "+"
            lines.append(f"{'  ' * node.depth}{mark} {label(node)}  N={node.statistics.visits} V={node.statistics.value:.2f}")
        return "\n".join(lines)

    def to_plain(self) -> list[dict[str, Any]]:
        """As plain JSON values."""
        return [
            {
                "parent": node.parent,
                "state": copy.deepcopy(dict(node.state)),
                "prior": node.prior,
                "terminal": node.terminal,
                "closed": node.closed,
                "visits": node.statistics.visits,
                "total": node.statistics.total,
            }
            for node in self.nodes
        ]

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]]) -> Tree:
        """From what `to_plain` gave. Raises InputError for anything else."""
        try:
            tree = cls(plain[0]["state"])
            tree.nodes = []
            for number, values in enumerate(plain):
                parent = values["parent"]
                depth = 0 if parent is None else tree.nodes[parent].depth + 1
                node = Node(number, parent, depth, copy.deepcopy(dict(values["state"])), values["prior"], values["terminal"], values["closed"])
                node.statistics = Statistics(values["visits"], values["total"])
                tree.nodes.append(node)
                if parent is not None:
                    tree.nodes[parent].children.append(number)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"the tree can't be read: {type(error).__name__} {error}; expected the list that Tree.to_plain() gives") from error
        return tree

    def _close_from(self, node: Node) -> None:
        """Close a node whose children are all closed, and then perhaps those above it."""
        at: Node | None = node
        while at is not None and all(child.closed for child in self.children(at.number)):
            at.closed = True
            at = self.nodes[at.parent] if at.parent is not None else None

    def _walk(self, depth: int) -> Iterator[Node]:
        waiting = [0]
        while waiting:
            node = self.nodes[waiting.pop()]
            yield node
            if node.depth < depth:
                waiting += reversed(node.children)
