"""Rewards that know of flawed positives, right answers reached by a wrong step (FAPO, arXiv:2510.22543), and how well flaws are found.

Of a group, alpha is the share of attempts that are right and sound, beta that of wrong ones, and 1 - alpha - beta that of flawed positives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from etude.tasks.first_error import FLAWLESS
from etude.types import Metrics, mean


def flaw_aware(right: bool, flawed: bool, *, penalty: float = 1.0) -> float:
    """1 for a right attempt, less `penalty` where it is flawed; -1 for a wrong one (eq. 4; the paper's penalty is 1)."""
    return (1.0 - penalty * flawed) if right else -1.0


def stepwise(named: int | None, first_wrong: int, steps: int) -> float:
    """What naming a step as the first wrong one of `steps` steps is worth, in [-1, 1] (section 3.2).

    -1 for an answer that cannot be read, and for saying flawed of a flawless solution or flawless of a flawed one. 1 for saying flawless rightly. For saying flawed
    rightly 1 less the distance to the first wrong step, over the number of steps.
    """
    if named is None or (named == FLAWLESS) != (first_wrong == FLAWLESS):
        return -1.0
    return 1.0 - abs(named - first_wrong) / steps


def verdict_only(named: int | None, first_wrong: int) -> float:
    """1 where flawed or flawless is said rightly, else -1: `stepwise` without its distance."""
    return 1.0 if named is not None and (named == FLAWLESS) == (first_wrong == FLAWLESS) else -1.0


def flaw_aware_mean(alpha: float, beta: float, *, penalty: float = 1.0) -> float:
    """A group's mean reward (appendix A)."""
    return 1 - 2 * beta - penalty * (1 - alpha - beta)


def flaw_aware_variance(alpha: float, beta: float, *, penalty: float = 1.0) -> float:
    """A group's variance, over its size (appendix A): that of the unpenalised rewards, and what the penalty adds or takes away."""
    flawed = 1 - alpha - beta
    return 4 * beta * (1 - beta) + penalty * flawed * (penalty * (1 - flawed) - 4 * beta)


def turns_against_flaws(alpha: float, beta: float, *, penalty: float = 1.0) -> bool:
    """Whether a flawed positive has a negative advantage: alpha / beta > 2 / penalty - 1, with a penalty of 1 where sound attempts outnumber wrong ones.

    Before that flawed positives are stepping stones, which are still reinforced; from then on they are pushed down. The shift needs no schedule.
    """
    return penalty * (alpha + beta) > 2 * beta + 1e-12


def spreads_more(alpha: float, beta: float, *, penalty: float = 1.0) -> bool:
    """Whether the penalty widens a group's rewards, and so shrinks its positive advantages: alpha / beta > 4 / penalty - 1."""
    return penalty * (alpha + beta) > 4 * beta + 1e-12


def detection(named: Sequence[int | None], first_wrong: Sequence[int]) -> Metrics:
    """How well flawed solutions were found among some; what has no value is left out. An answer that cannot be read (None) flags nothing.

    `precision`, `recall`, `f1`: of flagging what is flawed. `located`: share of the flawed whose first wrong step was named exactly. `cleared`: share of the flawless
    that were said to be so. `process_f1`: the harmonic mean of these two (ProcessBench). `unreadable`; `says_flawless` and `says_first`: shares of the readable answers
    that are -1 and 0, which near 1 mean that the judge always says the same.
    """
    pairs = list(zip(named, first_wrong, strict=True))
    flagged = [truth != FLAWLESS for name, truth in pairs if name is not None and name != FLAWLESS]
    flawed = [name for name, truth in pairs if truth != FLAWLESS]
    flawless = [name for name, truth in pairs if truth == FLAWLESS]
    readable = [name for name in named if name is not None]
    found: Metrics = {
        "precision": mean([float(hit) for hit in flagged]),
        "recall": mean([float(name is not None and name != FLAWLESS) for name in flawed]),
        "located": mean([float(name == truth) for name, truth in pairs if truth != FLAWLESS]),
        "cleared": mean([float(name == FLAWLESS) for name in flawless]),
        "unreadable": mean([float(name is None) for name in named]),
        "says_flawless": mean([float(name == FLAWLESS) for name in readable]),
        "says_first": mean([float(name == 0) for name in readable]),
    }
    found["f1"] = harmonic(found["precision"], found["recall"])
    found["process_f1"] = harmonic(found["located"], found["cleared"])
    return {name: value for name, value in found.items() if not math.isnan(value)}


def harmonic(a: float, b: float) -> float:
    """The harmonic mean of two shares; 0 where both are, NaN where one has no value."""
    return 2 * a * b / (a + b) if a + b else a + b
