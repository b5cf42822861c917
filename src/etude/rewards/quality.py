"""How good a partial solution is, by how far it is from a right answer: the quality value of ReST-MCTS* (arXiv:2406.03816), and values of a search tree's nodes by it.

A partial solution begins with the value 0 and gains by right steps, so that a right solution of K steps has k/K after step k. A wrong step costs as much as a right one
would have gained; the nearer to the end, the more that is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random

from etude.errors import InputError


def weighted_reward(value: float, distance: int, wrong: bool) -> float:
    """What a step adds: w = (1 - v) / (m + 1) * (1 - 2 r). value: v before it; distance: m, the least number of steps that are left after it; wrong: r."""
    return (1 - value) / (distance + 1) * (-1 if wrong else 1)


def quality_values(distances: Sequence[int], wrong: Sequence[bool]) -> list[float]:
    """The value after each step of a solution, in [0, 1]: v = max(v before + w, 0), from v = 0. distances: m after each step; wrong: whether the step is."""
    values, value = [], 0.0
    for distance, bad in zip(distances, wrong, strict=True):
        value = max(value + weighted_reward(value, distance, bad), 0.0)
        values.append(value)
    return values


def tree_targets(parents: Sequence[int | None], right: Mapping[int, bool]) -> dict[int, float]:
    """The quality value of each node of a tree that something is known about, from its judged leaves alone.

    parents: of each node, which has a lower number (None: the root, node 0). right: of leaves that gave an answer, whether it is the right one. A node on a way to a right
    leaf is a right step, as far from the answer as the nearest one. A node that leads to wrong leaves only is a wrong step, as far from it as the last node above that a
    right leaf hangs below. Nodes without a judged leaf below get no value, and without a right leaf nothing does. Raises InputError for a leaf that is not there.
    """
    if not all(0 <= leaf < len(parents) for leaf in right):
        raise InputError(f"leaves {sorted(right)} are judged of a tree of {len(parents)} nodes; expected numbers of its nodes")
    ahead: list[float] = [math.inf] * len(parents)
    """m + 1 of a right step: 1 at the end."""
    for leaf, good in right.items():
        at: int | None = leaf if good else None
        steps = 1
        while at is not None and steps < ahead[at]:
            ahead[at], at, steps = steps, parents[at], steps + 1
    if math.isinf(ahead[0]):
        return {}
    borrowed: dict[int, float] = {}
    for leaf, good in right.items():
        if good:
            continue
        below, at = [], leaf
        while math.isinf(ahead[at]):
            below.append(at)
            above = parents[at]
            assert above is not None, "the root is on the way to a right leaf"
            at = above
        borrowed |= dict.fromkeys(below, ahead[at])
    targets = {0: 0.0}
    for number, parent in enumerate(parents):
        good = not math.isinf(ahead[number])
        if parent is not None and (good or number in borrowed):
            distance = int(ahead[number] if good else borrowed[number]) - 1
            targets[number] = max(0.0, targets[parent] + weighted_reward(targets[parent], distance, not good))
    return targets


def trace_targets(parents: Sequence[int | None], leaf: int) -> dict[int, float]:
    """The cheaper variant, from one accepted solution: k/K for its nodes, and for each node beside it what its parent's depth less one makes, max(depth - 1, 0) / K."""
    route = [leaf]
    while (parent := parents[route[-1]]) is not None:
        route.append(parent)
    depth = {number: place for place, number in enumerate(reversed(route))}
    whole = len(route) - 1
    if not whole:
        raise InputError(f"leaf {leaf} is the root; expected a solution of at least one step")
    beside = {n: max(depth[parent] - 1, 0) / whole for n, parent in enumerate(parents) if parent in depth and n not in depth}
    return {number: place / whole for number, place in depth.items()} | beside


def shuffled(targets: Mapping[int, float], random: Random) -> dict[int, float]:
    """The same values dealt out to other nodes, the root keeping its own: what is left of the targets when they say nothing of the steps."""
    numbers = [number for number in targets if number]
    values = [targets[number] for number in numbers]
    random.shuffle(values)
    return {number: value for number, value in targets.items() if not number} | dict(zip(numbers, values, strict=True))
