"""A population of whole attempts: who stays (the best and the different ones), and who becomes a parent. Pure functions of values and of how alike members are.

Members go by numbers, which also say their order of birth. A parent set may have only so many children, so that not every child is made of the same two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from random import Random
from typing import Literal

from etude.rollouts.similarity import rouge_l

Alike = Callable[[int, int], float]
"""How alike two members are, from 0 to 1."""
Parents = tuple[int, ...]
Single = Literal["low", "high", "random"]
Pair = Literal["apart", "best", "newest", "random"]


def elite_and_diverse(values: Mapping[int, float], alike: Alike, *, size: int, elite: int, most_alike: float = 0.9) -> list[int]:
    """The members that stay, best first: `elite` of the highest value, and then, up to `size`, each time the one that is least like those that stay already.

    One that is more than `most_alike` like a better one that stays is dropped, also where places are left. Ties go to the higher value, then to the older member.
    """
    ranked = sorted(values, key=lambda n: (-values[n], n))
    kept: list[int] = []
    nearest: dict[int, float] = dict.fromkeys(ranked, 0.0)

    def keep(n: int) -> None:
        kept.append(n)
        for other in ranked:
            nearest[other] = max(nearest[other], alike(n, other)) if other not in kept else 1.0

    for n in ranked:
        if len(kept) < min(elite, size) and nearest[n] <= most_alike:
            keep(n)
    while len(kept) < size:
        free = [n for n in ranked if n not in kept and nearest[n] <= most_alike]
        if not free:
            break
        keep(min(free, key=lambda n: nearest[n]))
    return sorted(kept, key=lambda n: (-values[n], n))


def open_sets(sets: Iterable[Parents], children: Mapping[frozenset[int], int], most: int) -> list[Parents]:
    """The parent sets that may have another child. children: how many each has; most: 0 for no limit."""
    return [parents for parents in sets if not most or children.get(frozenset(parents), 0) < most]


def children_of(families: Iterable[Sequence[int]]) -> Counter[frozenset[int]]:
    """How many children each parent set has, from the parents of every child."""
    return Counter(frozenset(parents) for parents in families if parents)


def pick_one(sets: Sequence[Parents], values: Mapping[int, float], rule: Single, random: Random) -> Parents | None:
    """One of some single members: the lowest or the highest value (of equal ones the older), or any."""
    if not sets:
        return None
    if rule == "random":
        return random.choice(list(sets))
    sign = 1 if rule == "low" else -1
    return min(sets, key=lambda parents: (sign * values[parents[0]], parents[0]))


def pick_pair(sets: Sequence[Parents], values: Mapping[int, float], alike: Alike, rule: Pair, random: Random) -> Parents | None:
    """One of some pairs. `apart`: the highest sum of values and of how unlike they are; `best`: the highest sum of values; `newest`: born last; `random`: any."""
    if not sets:
        return None
    if rule == "random":
        return random.choice(list(sets))
    if rule == "newest":
        return max(sets, key=lambda pair: sorted(pair, reverse=True))
    apart = rule == "apart"
    return max(sets, key=lambda pair: (values[pair[0]] + values[pair[1]] + (1 - alike(*pair) if apart else 0.0), -max(pair), -min(pair)))


def pairs(members: Iterable[int]) -> list[Parents]:
    """All pairs of members."""
    return list(combinations(sorted(members), 2))


def with_guides(members: Iterable[int], values: Mapping[int, float], guides: int) -> list[Parents]:
    """Each member that something better exists of, with the best `guides` of those: whoever is to learn comes first."""
    ranked = sorted(members, key=lambda n: (-values[n], n))
    found = []
    for n in ranked:
        better = [other for other in ranked if values[other] > values[n]][:guides]
        found += [(n, *better)] if better else []
    return found


def alike_parts(parts: Mapping[int, Sequence[str]], most: int = 2000) -> Alike:
    """How alike two members are by their parts in order (words, lines): ROUGE-L over the first `most` of them. Measured once a pair."""
    known: dict[frozenset[int], float] = {}

    def alike(first: int, second: int) -> float:
        key = frozenset((first, second))
        if key not in known:
            known[key] = rouge_l(parts[first][:most], parts[second][:most])
        return known[key]

    return alike
