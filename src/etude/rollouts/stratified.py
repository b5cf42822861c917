"""Choosing a few of many attempts so that no task, or no outcome, crowds out the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


def stratified(strata: Sequence[Sequence[Item]], wanted: int, random: Random) -> list[Item]:
    """`wanted` items drawn without replacement, as evenly over the strata as they allow: all strata give one before any gives two (RISE, arXiv:2505.13445).

    With strata large enough each gives wanted // len(strata), and as many as remain, in random order of the strata, one more. One that runs out leaves its share to
    the others. Fewer items than wanted: all of them.
    """
    waiting = [random.sample(list(stratum), len(stratum)) for stratum in strata]
    random.shuffle(waiting)
    chosen: list[Item] = []
    while len(chosen) < wanted and any(waiting):
        for stratum in waiting:
            if stratum and len(chosen) < wanted:
                chosen.append(stratum.pop())
    return chosen


def even_shares(sizes: Mapping[Hashable, int], wanted: int) -> dict[Hashable, int]:
    """How many to take of each class so that the classes come as near to equal numbers as their sizes allow; one too small leaves its share to the others.

    Of what cannot be divided, the larger classes get one more (of equally large ones the later). They sum to `wanted`, or to everything there is.
    """
    shares: dict[Hashable, int] = {}
    left = wanted
    for place, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[name] = min(size, left // (len(sizes) - place))
        left -= shares[name]
    return shares


def balanced(strata: Sequence[Sequence[Item]], classes: Sequence[Sequence[Hashable]], wanted: int, random: Random) -> list[Item]:
    """`wanted` items with as many of each class as there can be, and within a class as evenly over the strata as they allow. classes: that of each item."""
    sizes: dict[Hashable, int] = {}
    for row in classes:
        for name in row:
            sizes[name] = sizes.get(name, 0) + 1
    chosen: list[Item] = []
    for name, share in even_shares(sizes, wanted).items():
        chosen += stratified([[i for i, c in zip(items, row, strict=True) if c == name] for items, row in zip(strata, classes, strict=True)], share, random)
    return chosen
