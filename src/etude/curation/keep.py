"""Which attempts are kept to be learnt from."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from random import Random

from etude.types import Trajectory


def rewarded(trajectories: Sequence[Trajectory], above: float) -> list[Trajectory]:
    """Those with a reward above a threshold, in their order. What could not be judged is not among them."""
    return [t for t in trajectories if not math.isnan(t.reward) and t.reward > above]


def distinct(trajectories: Sequence[Trajectory], key: Callable[[Trajectory], Hashable] | None = None) -> list[Trajectory]:
    """The first of every kind: by default, of those that learn the same tokens of the same task."""
    seen: set[Hashable] = set()
    kept: list[Trajectory] = []
    for trajectory in trajectories:
        own = key(trajectory) if key is not None else (trajectory.task.id, tuple(t for s in trajectory.segments if s.trained for t in s.tokens))
        if own not in seen:
            seen.add(own)
            kept.append(trajectory)
    return kept


def capped(trajectories: Sequence[Trajectory], per_task: int, random: Random) -> list[Trajectory]:
    """At most `per_task` of each task, drawn at random, in their order (0: all): easy tasks, which have many, do not crowd out the rest."""
    if not per_task:
        return list(trajectories)
    of_task: dict[str, list[int]] = {}
    for i, trajectory in enumerate(trajectories):
        of_task.setdefault(trajectory.task.id, []).append(i)
    kept = {i for places in of_task.values() for i in (places if len(places) <= per_task else random.sample(places, per_task))}
    return [t for i, t in enumerate(trajectories) if i in kept]


def share_weights(wanted: Sequence[bool], share: float) -> list[float]:
    """Weights with which the wanted items have at least `share` of the total, in [0, 1): 1 for all others, and for all where they have it as it is, or there are none."""
    count = sum(wanted)
    others = len(wanted) - count
    weight = max(1.0, share * others / ((1 - share) * count)) if count else 1.0
    return [weight if own else 1.0 for own in wanted]


def one_per_task(trajectories: Sequence[Trajectory], kind: Callable[[Trajectory], Hashable], random: Random) -> list[Trajectory]:
    """One attempt of each task: of the kinds that a task has, the one that was taken least so far; of that kind's attempts, and of kinds taken alike, one at random.

    Ways that succeed more often on the same task, or are merely tried more often, are not learnt more for it.
    """
    of_task: dict[str, dict[Hashable, list[Trajectory]]] = {}
    for trajectory in trajectories:
        of_task.setdefault(trajectory.task.id, {}).setdefault(kind(trajectory), []).append(trajectory)
    taken: dict[Hashable, int] = {}
    kept: list[Trajectory] = []
    for kinds in of_task.values():
        least = min(taken.get(k, 0) for k in kinds)
        chosen = random.choice([k for k in kinds if taken.get(k, 0) == least])
        taken[chosen] = taken.get(chosen, 0) + 1
        kept.append(random.choice(kinds[chosen]))
    return kept
