"""Which child a search goes on with: scores of a child by what is known of it and of its parent, and the draw between equals."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from etude.search.tree import Node, Tree

Rule = Callable[[Node, Node], float]
"""Score of a child (first) of a parent (second); the search goes on with the highest."""


def uct(c: float = 0.25) -> Rule:
    """W/N + c sqrt(ln N_parent / N) (Kocsis and Szepesvári, 2006); infinite for a child without a visit, so that each is tried before one is tried twice.

    What is in flight counts as visits that brought nothing (a virtual loss).
    """

    def score(child: Node, parent: Node) -> float:
        visits = child.statistics.visits + child.reserved
        if not visits:
            return math.inf
        return child.statistics.total / visits + c * math.sqrt(math.log(max(1, parent.statistics.visits + parent.reserved)) / visits)

    return score


def puct(c: float = 1.25) -> Rule:
    """W/N + c P sqrt(N_parent) / (1 + N) (AlphaZero): what the policy finds likely is tried first, and a child without a visit has the value 0.

    What is in flight counts as visits that brought nothing (a virtual loss).
    """

    def score(child: Node, parent: Node) -> float:
        visits = child.statistics.visits + child.reserved
        return child.statistics.total / max(1, visits) + c * child.prior * math.sqrt(parent.statistics.visits + parent.reserved) / (1 + visits)

    return score


def select(tree: Tree, number: int, rule: Rule, random: Random) -> Node | None:
    """The open child of a node with the highest score, ties drawn from `random`; None where all are closed, or are being expanded."""
    parent = tree.nodes[number]
    free = [child for child in tree.children(number) if not child.closed and (child.children or not child.reserved)]
    scored = [(rule(child, parent), child) for child in free]
    if not scored:
        return None
    best = max(score for score, _ in scored)
    return random.choice([child for score, child in scored if score == best])
