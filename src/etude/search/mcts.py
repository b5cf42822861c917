"""Monte-Carlo tree search over many trees in lock-step: each turn of the loop asks for the next node of every tree, so that one batch serves all of them.

    select ──► expand (a batch) ──► evaluate (a batch) ──► back-propagate
      ▲                                                        │
      └────────────────────────────────────────────────────────┘

The loop knows nothing of models and environments: two functions make the children of nodes and value them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from etude.errors import InputError
from etude.search.selection import Rule, select
from etude.search.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class Limits:
    """When the search of a tree ends. iterations: descents from the root; depth: actions on a path; evaluations: values that came back, tokens: what those who expand and
    value its nodes have added to `Search.tokens` (0: no limit). The expansion that reaches the limit of tokens is the last one."""

    iterations: int
    depth: int
    evaluations: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.depth < 1 or self.evaluations < 0 or self.tokens < 0:
            raise InputError(
                f"the search has {self.iterations} iterations, depth {self.depth}, {self.evaluations} evaluations and {self.tokens} tokens; "
                "expected at least 1, 1, 0 and 0 (no limit)"
            )

    def spent(self, search: Search) -> bool:
        """Whether a tree may spend no more."""
        return bool(self.evaluations and search.evaluations >= self.evaluations) or bool(self.tokens and search.tokens >= self.tokens)


@dataclass(frozen=True, slots=True)
class Child:
    """A state that an action leads to. terminal: the search need not go on from there. prior: probability of the action, for PUCT."""

    state: Mapping[str, Any]
    terminal: bool = False
    prior: float = 1.0


@dataclass(slots=True, eq=False)
class Search:
    """One tree that is being grown. random: draws between equals; place: which one it is, for whoever expands it."""

    tree: Tree
    random: Random
    place: int = 0
    iterations: int = 0
    evaluations: int = 0
    tokens: int = 0
    at: int | None = field(default=None)
    """Where the present descent has come to; None between descents."""

    def next(self, limits: Limits, rule: Rule) -> Node | None:
        """The node to expand next: descend by the rule, from the root when the last descent has ended. None when the search has, or waits for what is in flight."""
        while not (self.tree.root.closed or limits.spent(self)):
            if self.at is None:
                if self.iterations >= limits.iterations:
                    return None
                self.iterations, self.at = self.iterations + 1, 0
            node: Node | None = self.tree.nodes[self.at]
            while node is not None and node.children:
                node = select(self.tree, node.number, rule, self.random)
            if node is not None and not node.closed and not node.reserved:
                self.at = node.number
                return node
            self.at = None
            if self.tree.root.reserved:
                self.iterations -= 1
                return None
        return None

    def to_plain(self) -> dict[str, Any]:
        """As plain JSON values, from which the search goes on as if it had not been stopped."""
        version, state, gauss = self.random.getstate()
        counts = {name: getattr(self, name) for name in ("place", "iterations", "evaluations", "tokens", "at")}
        return {"tree": self.tree.to_plain(), "random": [version, list(state), gauss], **counts}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Search:
        """From what `to_plain` gave. Raises InputError for anything else."""
        try:
            random = Random()
            version, state, gauss = plain["random"]
            random.setstate((version, tuple(state), gauss))
            tree = Tree.from_plain(plain["tree"])
            return cls(tree, random, plain["place"], plain["iterations"], plain["evaluations"], plain["tokens"], plain["at"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the search can't be read: {type(error).__name__} {error}; expected what Search.to_plain() gives") from error


Place = tuple[Search, Node]
Expand = Callable[[Sequence[Place]], Sequence[Sequence[Child]]]
Evaluate = Callable[[Sequence[Place]], Sequence[float | None]]


def grow(searches: Sequence[Search], expand: Expand, evaluate: Evaluate, *, limits: Limits, rule: Rule, to_the_end: bool = True, width: int = 1) -> None:
    """Grow all trees, in lock-step, until each has reached its limits or is closed.

    expand: the children of each node it is given; fewer or none where nothing can be done. A child at the depth limit becomes terminal. evaluate: of each new node its
    value, which goes up to the root, or None where it has none yet. to_the_end: a descent goes on from where it expanded until nothing below is open, which makes it
    its own roll-out (as in Agent-R); otherwise it ends with one expansion, and `evaluate` has to value nodes in the middle. width: nodes of a tree that are expanded at
    once, where descents end with one expansion; each is reserved, so that the next descent of the turn goes elsewhere. Raises InputError for widths that can't be.
    """
    if width < 1 or (width > 1 and to_the_end):
        raise InputError(f"width is {width}; expected 1, or more where descents end with one expansion (to_the_end=False)")
    while True:
        front: list[Place] = []
        for search in searches:
            for _ in range(width):
                if (node := search.next(limits, rule)) is None:
                    break
                front.append((search, node))
                search.tree.reserve(node.number)
                if not to_the_end:
                    search.at = None
        if not front:
            return
        fresh: list[Place] = []
        for (search, node), children in zip(front, expand(front), strict=True):
            made = search.tree.expand(
                node.number,
                [child.state for child in children],
                terminal=[child.terminal or node.depth + 1 >= limits.depth for child in children],
                priors=[child.prior for child in children],
            )
            search.tree.release(node.number)
            fresh += [(search, child) for child in made]
        for (search, node), value in zip(fresh, evaluate(fresh), strict=True):
            if value is not None:
                search.evaluations += 1
                search.tree.record(node.number, value)
