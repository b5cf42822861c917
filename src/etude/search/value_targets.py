"""What a value model learns from: trees of solutions whose ends were judged, whether a search grew them or attempts were laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal

from etude.models.language import LanguageModel
from etude.rewards.quality import shuffled, trace_targets, tree_targets
from etude.search.tree import Tree
from etude.types import Trajectory

Targets = Literal["tree", "trace", "shuffled", "chance"]
Way = tuple[list[int], list[list[int]], list[float | None]]
"""A way through a tree, as plain values: the prompt, the steps, and the values before the first and behind each of them, None where nothing is known. See `reading`."""


def split_tokens(policy: LanguageModel, tokens: Sequence[int], delimiter: str) -> list[list[int]]:
    """The steps of a solution, each with the token that ends it: the one in which the delimiter is complete."""
    steps: list[list[int]] = [[]]
    for token in tokens:
        steps[-1].append(token)
        if delimiter in str(policy.tokenizer.decode(steps[-1])):
            steps.append([])
    return [step for step in steps if step]


def merged(prompt: Sequence[int], solutions: Sequence[Sequence[Sequence[int]]]) -> tuple[Tree, list[int]]:
    """Solutions of one task, each a list of steps, laid over each other as far as they begin alike: the tree, and the node that each ends in."""
    tree, ends = Tree({"tokens": list(prompt)}), list[int]()
    for steps in solutions:
        at = 0
        for step in steps:
            same = next((child.number for child in tree.children(at) if child.state["tokens"] == list(step)), None)
            at = tree.add(at, {"tokens": list(step)}).number if same is None else same
        ends.append(at)
    return tree, ends


def targets_of(tree: Tree, right: Mapping[int, bool], kind: Targets, random: Random) -> dict[int, float]:
    """Values of a tree's nodes from its judged ends: by the whole tree; from a shortest right solution alone (`trace`); or, as controls, the tree's values dealt out to other
    nodes (`shuffled`) or drawn (`chance`). Nothing without a right end."""
    parents = [node.parent for node in tree.nodes]
    good = [number for number, ok in right.items() if ok]
    if not good:
        return {}
    if kind == "trace":
        return trace_targets(parents, min(good, key=lambda number: tree.nodes[number].depth))
    targets = tree_targets(parents, right)
    if kind == "shuffled":
        return shuffled(targets, random)
    return {number: random.random() for number in targets} if kind == "chance" else targets


def ways(tree: Tree, targets: Mapping[int, float]) -> list[Way]:
    """The targets on few ways from the root, which together go through all of them.

    Each way has all values that are known on it, so that nodes near the root are learnt several times. The steps before the newest one are read anyway, and it is beside
    their values that a model sees what a wrong step changes: with each value once, on the first way through it, most ways would teach a single one.
    """
    left, found = set(targets), list[Way]()
    for number in sorted(targets, reverse=True):
        if number not in left or (number == 0 and found):
            continue
        root, *steps = tree.path(number)
        left -= {node.number for node in (root, *steps)}
        values = [targets.get(node.number) for node in (root, *steps)]
        found.append((list(root.state["tokens"]), [list(step.state["tokens"]) for step in steps], values))
    return found


def judged_ends(ends: Sequence[int], attempts: Sequence[Trajectory], above: float) -> dict[int, bool]:
    """Whether each end of a tree is right, by its attempts' rewards: right where one is above a threshold. What could not be judged says nothing."""
    right: dict[int, bool] = {}
    for number, attempt in zip(ends, attempts, strict=True):
        if attempt.reward == attempt.reward:
            right[number] = right.get(number, False) or attempt.reward > above
    return right
