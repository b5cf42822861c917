"""The tree of a search: nodes with plain states, statistics that nobody else can change, and what is closed to further search.

A node is reached from its parent by one action, or made out of several nodes (a recombination), of which the first counts as its parent. What an action is, and what
a state holds, is the search's business; the tree only asks that states are plain JSON values, so that it can be written to a file and read again.
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

    parent, children: numbers in the tree; others: its further parents, where it was made out of several nodes. depth: actions from the root. prior: how likely the
    policy finds the action that leads here (PUCT). terminal: nothing comes after it. closed: there is nothing left to search below it, since it is terminal or all its
    children are closed. statistics: values of this node and of all its descendants, its clade; own: its own values. reserved: work in flight at it or below.
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
    own: Statistics = Statistics()
    others: tuple[int, ...] = ()
    reserved: int = 0

    @property
    def parents(self) -> tuple[int, ...]:
        """All its parents: none for the root, one for most."""
        return () if self.parent is None else (self.parent, *self.others)


class Tree:
    """Nodes by number, the root being 0; parents have lower numbers than their children."""

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

    def add(self, parents: int | Sequence[int], state: Mapping[str, Any], *, terminal: bool = False, prior: float = 1.0) -> Node:
        """One more child, at any time, of a node or of several; finished attempts can be parents too. The state is copied.

        Raises InputError for parents that are not there, or named twice.
        """
        named = (parents,) if isinstance(parents, int) else tuple(parents)
        if not named or len(set(named)) != len(named) or not all(0 <= number < len(self.nodes) for number in named):
            raise InputError(f"a node can't be made out of nodes {named} of a tree of {len(self.nodes)}; expected one or more different ones that are there")
        first = self.nodes[named[0]]
        made = Node(len(self.nodes), first.number, first.depth + 1, copy.deepcopy(dict(state)), prior, terminal, terminal, others=named[1:])
        self.nodes.append(made)
        for number in named:
            self.nodes[number].children.append(made.number)
            if not terminal:
                self._open_from(self.nodes[number])
        return made

    def finish(self, number: int) -> None:
        """End the search at a node without children: nothing comes after it, as was found out only now. Raises InputError for one that has children."""
        node = self.nodes[number]
        if node.children:
            raise InputError(f"node {number} of the tree has children; expected one that the search has not expanded")
        node.terminal = True
        self._close_from(node)

    def record(self, number: int, value: float) -> None:
        """Give a node a value of its own, and send it up to the root: each ancestor counts one more visit, on however many ways it is reached."""
        node = self.nodes[number]
        node.own = node.own.seen(value)
        for above in self.ancestry(number):
            above.statistics = above.statistics.seen(value)

    def reserve(self, number: int) -> None:
        """Note that something at a node is in flight: rules count it as a visit that brought nothing yet, so that parallel searches spread out."""
        for node in self.ancestry(number):
            node.reserved += 1

    def release(self, number: int) -> None:
        """Note that it has come back. Raises InputError for a node that nothing was reserved at."""
        if self.nodes[number].reserved < 1:
            raise InputError(f"nothing is in flight at node {number} of the tree; expected as many calls of release as of reserve")
        for node in self.ancestry(number):
            node.reserved -= 1

    def ancestry(self, number: int) -> list[Node]:
        """A node and all its ancestors, each once, latest first."""
        path = self.path(number)
        if not any(node.others for node in path):
            return path[::-1]
        found, waiting = {number}, [number]
        while waiting:
            fresh = [parent for parent in self.nodes[waiting.pop()].parents if parent not in found]
            found.update(fresh)
            waiting += fresh
        return [self.nodes[n] for n in sorted(found, reverse=True)]

    def path(self, number: int) -> list[Node]:
        """The nodes from the root to one of them, both included; where a node has several parents, by way of the first."""
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
        """The tree as text, a line a node: its label, visits and value, and whether it is terminal (`.`), closed (`-`) or open (`+`). depth: nodes below are left out.

        A node with several parents stands under its first one, and names the others.
        """
        lines: list[str] = []
        for node in self._walk(depth):
            mark = "." if node.terminal else "-" if node.closed else "+"
            also = f"  also from {', '.join(map(str, node.others))}" if node.others else ""
            lines.append(f"{'  ' * node.depth}{mark} {label(node)}  N={node.statistics.visits} V={node.statistics.value:.2f}{also}")
        return "\n".join(lines)

    def to_plain(self) -> list[dict[str, Any]]:
        """As plain JSON values. What is in flight is left out: whoever reads them has to begin it anew."""
        return [
            {
                "parents": list(node.parents),
                "state": copy.deepcopy(dict(node.state)),
                "prior": node.prior,
                "terminal": node.terminal,
                "closed": node.closed,
                "visits": node.statistics.visits,
                "total": node.statistics.total,
                "own_visits": node.own.visits,
                "own_total": node.own.total,
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
                parents = values["parents"]
                parent = parents[0] if parents else None
                depth = 0 if parent is None else tree.nodes[parent].depth + 1
                node = Node(number, parent, depth, copy.deepcopy(dict(values["state"])), values["prior"], values["terminal"], values["closed"])
                node.statistics, node.own = Statistics(values["visits"], values["total"]), Statistics(values["own_visits"], values["own_total"])
                node.others = tuple(parents[1:])
                tree.nodes.append(node)
                for above in parents:
                    tree.nodes[above].children.append(number)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"the tree can't be read: {type(error).__name__} {error}; expected the list that Tree.to_plain() gives") from error
        return tree

    def _close_from(self, node: Node) -> None:
        """Close a node whose children are all closed, and then perhaps those above it."""
        if not node.closed and all(child.closed for child in self.children(node.number)):
            node.closed = True
            for parent in node.parents:
                self._close_from(self.nodes[parent])

    def _open_from(self, node: Node) -> None:
        """Open a node that has an open child again, and those above it."""
        for above in self.ancestry(node.number):
            above.closed = False

    def _walk(self, depth: int) -> Iterator[Node]:
        waiting = [0]
        while waiting:
            node = self.nodes[waiting.pop()]
            yield node
            if node.depth < depth:
                waiting += [child for child in reversed(node.children) if self.nodes[child].parent == node.number]
