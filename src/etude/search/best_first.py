"""Best-first choice among all nodes of a tree of actions: a score that is a sum of terms, each with a weight (SWE-Search, arXiv:2410.20285, and its two code bases).

    value + exploration sqrt(ln N_parent / N) + early exp(-early_decay (depth - 1)) - late sqrt(depth) + bonuses and penalties

Values lie in [-100, 100], and every term is in these points. A state holds what the terms read: `value` (None where nothing could be read), `kind`, `failed`, `duplicate`,
`files`, `spans`, `product`; see `etude.search.acting.ActionTree`. None of it comes from hidden tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from random import Random
from statistics import mean
from typing import ClassVar, Literal

from etude.errors import InputError
from etude.search.actions import jaccard
from etude.search.tree import Node, Tree
from etude.tasks.options import settings_in

HIGH, LOW, GREAT, PERFECT = 55.0, 50.0, 75.0, 100.0
"""Values from which on a node is good, up to which it is poor, from which on a child has made much progress, and of a finished node that leaves nothing to wish for."""
Exploit = Literal["own", "path", "clade"]
"""What a node is worth: what the judge said of it, the mean of that over its path, or the mean of all values that came back through it (W / N)."""


@dataclass(frozen=True)
class Weights:
    """How much each term counts; 0 leaves it out. The defaults are the plain rule, without the code's heuristics."""

    exploration: float = 30.0
    early: float = 0.0
    early_decay: float = 0.8
    late: float = 0.8
    good_leaf: float = 0.0
    bad_only_child: float = 0.0
    great_child: float = 0.0
    poor_leaf: float = 0.0
    finished_path: float = 0.0
    correction: float = 0.0
    duplicates: float = 0.0
    same_kind: float = 0.0
    diversity: float = 0.0
    low: float = LOW
    high: float = HIGH

    MEANING: ClassVar[Mapping[str, str]] = {
        "exploration": "C: how much nodes that were seldom visited are preferred",
        "early": "alpha: bonus of shallow nodes that have children",
        "early_decay": "beta: how fast that bonus falls with the depth",
        "late": "gamma: penalty of the depth's square root",
        "good_leaf": "bonus of a good node that has no child yet",
        "bad_only_child": "times what a good node's only child, a poor edit, lost",
        "great_child": "penalty of a node that has a great child",
        "poor_leaf": "times what a poor leaf of a good parent lacks to be no longer poor",
        "finished_path": "penalty of nodes on a path that finished with 100",
        "correction": "bonus, over 1 + children squared, of a node whose action failed",
        "duplicates": "penalty times the squared number of duplicates among the children",
        "same_kind": "penalty times the squared surplus of children of one kind",
        "diversity": "bonus of states that are unlike the others",
        "low": "value up to which a node is poor",
        "high": "value from which on it is good",
    }

    @classmethod
    def preset(cls, name: str, changes: str = "") -> Weights:
        """`plain`; `development` and `refactored`, the weights of the paper's two code bases. changes: `name=value,...` over these. Raises InputError for others."""
        made = PRESETS[name]
        given = settings_in(changes, f"--weights {changes}", cls.MEANING, example="good_leaf=20,diversity=0")
        wrong = [name for name, value in given.items() if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)]
        if wrong:
            raise InputError(f"--weights {changes}: {wrong[0]} is {given[wrong[0]]!r}; expected a number")
        return replace(made, **{name: float(value) for name, value in given.items()})


_HEURISTICS = {"finished_path": 50.0, "correction": 50.0, "duplicates": 25.0, "same_kind": 50.0, "great_child": 5.0, "bad_only_child": 5.0}
PRESETS: Mapping[str, Weights] = {
    "plain": Weights(),
    # The exploration term is computed there and left out of the sum.
    "development": Weights(exploration=0.0, early=200.0, good_leaf=20.0, poor_leaf=5.0, diversity=100.0, **_HEURISTICS),
    "refactored": Weights(exploration=1.0, good_leaf=50.0, poor_leaf=1.0, diversity=100.0, low=0.0, high=50.0, **_HEURISTICS),
}

Context = tuple[frozenset[str], frozenset[str], str]
"""Files and places that a state has seen, and what it has made."""
Term = Callable[[Tree, Node, Weights], float]


def value_of(node: Node) -> float | None:
    """What the judge said of a node; None of the root, and where nothing could be read."""
    return node.state.get("value")


def worth(tree: Tree, node: Node, exploit: Exploit = "own") -> float:
    """What a node is worth. One without a value of its own is worth the mean of what came back through it, and 0 before anything did: a judge that fails makes no node
    the most or the least wanted one."""
    own = value_of(node)
    if exploit == "path":
        known = [value for above in tree.path(node.number) if (value := value_of(above)) is not None]
        return mean(known) if known else node.statistics.value
    return node.statistics.value if own is None or exploit == "clade" else own


def exploration(tree: Tree, node: Node, weights: Weights) -> float:
    """C sqrt(ln N_parent / N); N is 1 at least, and the root is its own parent."""
    above = tree.nodes[node.parent] if node.parent is not None else node
    return weights.exploration * math.sqrt(math.log(max(1, above.statistics.visits)) / max(1, node.statistics.visits))


def early(tree: Tree, node: Node, weights: Weights) -> float:
    """alpha exp(-beta (depth - 1)) of a node that has children; of the root as of depth 1."""
    return weights.early * math.exp(-weights.early_decay * (max(1, node.depth) - 1)) if node.children else 0.0


def late(tree: Tree, node: Node, weights: Weights) -> float:
    """-gamma sqrt(depth)."""
    return -weights.late * math.sqrt(node.depth)


def good_leaf(tree: Tree, node: Node, weights: Weights) -> float:
    """A bonus for a good node that has no child yet."""
    value = value_of(node)
    return weights.good_leaf if value is not None and value >= weights.high and not node.children else 0.0


def bad_only_child(tree: Tree, node: Node, weights: Weights) -> float:
    """A good node whose only child is an edit that came out poorly deserves another try: (value - child's value) times the weight."""
    value, children = value_of(node), tree.children(node.number)
    if value is None or value < weights.high or len(children) != 1 or children[0].state.get("kind") != "edit":
        return 0.0
    child = value_of(children[0])
    return weights.bad_only_child * (value - child) if child is not None and child <= weights.low else 0.0


def great_child(tree: Tree, node: Node, weights: Weights) -> float:
    """A small penalty for a node with a great child, below which the search had better go on."""
    return -weights.great_child if any((value_of(child) or 0) >= GREAT for child in tree.children(node.number)) else 0.0


def poor_leaf(tree: Tree, node: Node, weights: Weights) -> float:
    """A poor leaf of a good parent may only need another step: (threshold - value) times the weight."""
    value = value_of(node)
    above = value_of(tree.nodes[node.parent]) if node.parent is not None else None
    if value is None or above is None or node.children or above < weights.high or value >= weights.low:
        return 0.0
    return weights.poor_leaf * (weights.low - value)


def finished_path(tree: Tree, node: Node, weights: Weights) -> float:
    """A penalty below the root for nodes that a finished attempt of value 100 went through."""
    if not weights.finished_path or node.parent is None:
        return 0.0
    ends = [end for end in tree.ends() if (value_of(end) or 0) >= PERFECT]
    return -weights.finished_path if any(node in tree.path(end.number) for end in ends) else 0.0


def correction(tree: Tree, node: Node, weights: Weights) -> float:
    """After an action that failed a correction is expected: the weight over 1 + k², k children having been tried."""
    return weights.correction / (1 + len(node.children) ** 2) if node.state.get("failed") else 0.0


def duplicates(tree: Tree, node: Node, weights: Weights) -> float:
    """-weight n², n children being duplicates of others."""
    return -weights.duplicates * sum(bool(child.state.get("duplicate")) for child in tree.children(node.number)) ** 2


def same_kind(tree: Tree, node: Node, weights: Weights) -> float:
    """-weight (n - 1)² for each kind of action that n children have."""
    kinds = [child.state.get("kind") for child in tree.children(node.number)]
    return -weights.same_kind * sum((kinds.count(kind) - 1) ** 2 for kind in set(kinds))


def diversity(tree: Tree, node: Node, weights: Weights) -> float:
    """weight (1 - mean similarity to the other states that are no duplicates); nothing where there are none."""
    if not weights.diversity:
        return 0.0
    others = [other for other in tree.nodes if other is not node and not other.state.get("duplicate")]
    return weights.diversity * (1 - mean(similarity(node, other) for other in others)) if others else 0.0


def similarity(one: Node, other: Node) -> float:
    """0.4 of the files that two states looked at, 0.2 of the places (shares that they have in common), and 0.4 of how alike their changes are as texts; in [0, 1]."""
    return _alike(_context(one), _context(other))


def _context(node: Node) -> Context:
    return frozenset(node.state.get("files", ())), frozenset(node.state.get("spans", ())), node.state.get("product") or ""


@lru_cache(maxsize=1 << 16)
def _alike(one: Context, other: Context) -> float:
    made = 1.0 if one[2] == other[2] else SequenceMatcher(None, one[2], other[2], autojunk=False).quick_ratio()
    return 0.4 * jaccard(one[0], other[0]) + 0.2 * jaccard(one[1], other[1]) + 0.4 * made


TERMS: tuple[Term, ...] = (
    exploration,
    early,
    late,
    good_leaf,
    bad_only_child,
    great_child,
    poor_leaf,
    finished_path,
    correction,
    duplicates,
    same_kind,
    diversity,
)
"""Everything that is added to a node's worth."""


def score(tree: Tree, node: Node, weights: Weights, exploit: Exploit = "own") -> float:
    """What is to be expanded next has the highest of these."""
    return worth(tree, node, exploit) + sum(term(tree, node, weights) for term in TERMS)


def expandable(tree: Tree, *, most_children: int, depth: int) -> list[Node]:
    """Nodes that may have another child: not terminal, no duplicate, not closed by whoever acts there, less deep than `depth`, and with fewer than `most_children`."""
    return [
        node
        for node in tree.nodes
        if not (node.terminal or node.closed or node.state.get("duplicate")) and node.depth < depth and len(node.children) < most_children
    ]


def best(tree: Tree, nodes: Sequence[Node], weights: Weights, random: Random, exploit: Exploit = "own") -> Node | None:
    """The node with the highest score, ties drawn from `random`; None of none."""
    scored = [(score(tree, node, weights, exploit), node) for node in nodes]
    if not scored:
        return None
    most = max(value for value, _ in scored)
    return random.choice([node for value, node in scored if value == most])


def newest_line(tree: Tree, *, depth: int) -> Node | None:
    """Where an agent without a tree goes on: the newest node, or the root where that one has ended or is too deep."""
    newest = tree.nodes[-1]
    going_on = not (newest.terminal or newest.closed) and newest.depth < depth
    found = newest if going_on else tree.root
    return None if found.closed else found
