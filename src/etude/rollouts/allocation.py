"""How many further attempts each task gets, from how its first ones went: pure functions of counts and scores.

`uncertainty_priority` and `greedy_allocation` are XRPO's (arXiv:2510.06672); the quotas by accuracy are DARS's (arXiv:2508.13755).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

NO_ATTEMPT_MORE = -math.inf
"""Priority of a task that has had all the attempts it may get."""


# By uncertainty


def half_width(deviation: float, count: int, *, confidence: float = 0.95) -> float:
    """Half the width of Student's interval for a mean: t s / sqrt(n), from the unbiased standard deviation of n rewards. Infinite for n below 2."""
    return math.inf if count < 2 else _t_quantile(count - 1, confidence) * deviation / math.sqrt(count)


def uncertainty_reduction(deviation: float, count: int, *, confidence: float = 0.95) -> float:
    """How much narrower that half width would be with one more attempt of the same spread: h(n) - h(n + 1). 0 without spread or with fewer than 2 attempts."""
    if deviation == 0 or count < 2:
        return 0.0
    return half_width(deviation, count, confidence=confidence) - half_width(deviation, count + 1, confidence=confidence)


def exploration_bonus(count: int, drawn: int, *, weight: float) -> float:
    """weight * sqrt(log(1 + T) / n), for a task with n of the T attempts that were drawn so far: it grows for tasks that the others have left behind."""
    return weight * math.sqrt(math.log1p(drawn) / max(1, count))


def uncertainty_priority(deviation: float, count: int, drawn: int, *, exploration: float, confidence: float = 0.95) -> float:
    """What one more attempt at a task promises: the reduction of its mean's uncertainty, plus the bonus."""
    return uncertainty_reduction(deviation, count, confidence=confidence) + exploration_bonus(count, drawn, weight=exploration)


def greedy_allocation(counts: Sequence[int], deviations: Sequence[float], budget: int, *, most: int, exploration: float, confidence: float = 0.95) -> list[int]:
    """Give out `budget` attempts one at a time, each to the task with the highest priority at the count that it would then have. Returns how many each gets.

    counts, deviations: attempts and unbiased standard deviation of the rewards of each task; the latter, and the number of attempts drawn, stay as they are
    meanwhile. No task goes above `most` attempts, so that some of the budget may be left. Ties go to the task with fewer attempts, then to the earlier one.
    """
    drawn = sum(counts)

    def entry(place: int, count: int) -> tuple[float, int, int]:
        priority = uncertainty_priority(deviations[place], count, drawn, exploration=exploration, confidence=confidence) if count < most else NO_ATTEMPT_MORE
        return (-priority, count, place)

    queue = [entry(place, count) for place, count in enumerate(counts)]
    heapq.heapify(queue)
    given = [0] * len(counts)
    for _ in range(budget if queue else 0):
        worst, count, place = queue[0]
        if -worst == NO_ATTEMPT_MORE:
            break
        given[place] += 1
        heapq.heapreplace(queue, entry(place, count + 1))
    return given


def even_allocation(counts: Sequence[int], budget: int, *, most: int) -> list[int]:
    """Give out `budget` attempts one at a time to whoever has fewest, the earlier of two: what a fixed number of attempts at each task would do."""
    return greedy_allocation(counts, [0.0] * len(counts), budget, most=most, exploration=0.0)


@lru_cache(maxsize=4096)
def _t_quantile(freedom: int, confidence: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, freedom))


# By accuracy


def cumulative_advantage(accuracy: float, *, scaled: bool = False) -> float:
    """The sum of |advantage| over a group of binary rewards, per attempt: 2 u (1 - u), or with division by the (population) deviation 2 sqrt(u (1 - u)).

    It is largest at an accuracy u of 1/2 and falls to 0 for tasks that are always or never solved (DARS, section 3).
    """
    variance = accuracy * (1 - accuracy)
    return 2 * math.sqrt(variance) if scaled else 2 * variance


Quota = Callable[[float, int, int, bool], int]
"""(accuracy, attempts made, most attempts, scaled) -> further attempts."""


def equal_treatment(accuracy: float, size: int, most: int, scaled: bool = False) -> int:
    """Attempts to add so that a hard task's cumulative advantage reaches that of a task at accuracy 1/2; 0 from there on, `most` attempts in all at most."""
    return _quota(accuracy, size, most, scaled, lambda _: 1.0)


def hardness_weighted(accuracy: float, size: int, most: int, scaled: bool = False) -> int:
    """Attempts to add so that a hard task's cumulative advantage is 2 (1 - u) times that of a task at accuracy 1/2: the harder, the more."""
    return _quota(accuracy, size, most, scaled, lambda u: 2 * (1 - u))


def easiness_weighted(accuracy: float, size: int, most: int, scaled: bool = False) -> int:
    """The mirror image of `hardness_weighted`: attempts are added to tasks that are nearly always solved. What DARS should not do, for comparison with it."""
    return hardness_weighted(1 - accuracy, size, most, scaled)


QUOTAS: dict[str, Quota] = {"equal-treatment": equal_treatment, "hardness-weighted": hardness_weighted, "easiness-weighted": easiness_weighted}


def _quota(accuracy: float, size: int, most: int, scaled: bool, goal: Callable[[float], float]) -> int:
    """ceil((goal(u) T - N S(u)) / S(u)), where S(u) is the cumulative advantage per attempt and T that of N attempts at accuracy 1/2.

    A task that was never solved counts as half a success in N attempts, so that what it asks for is finite. An accuracy that is not known (NaN) asks for nothing.
    """
    if not accuracy < 0.5:
        return 0
    u = accuracy if accuracy > 0 else 0.5 / size
    wanted = size * (goal(u) * cumulative_advantage(0.5, scaled=scaled) / cumulative_advantage(u, scaled=scaled) - 1)
    # What should be a whole number may come out a hair above it.
    return max(0, min(math.ceil(wanted - 1e-9), most - size))


def capped_quotas(quotas: Sequence[int], unsolved: Sequence[bool], *, drawn: int, share: float) -> list[int]:
    """Quotas of which the unsolved tasks' together are at most `share` of all attempts of the step, the `drawn` ones included.

    A task that nobody solves may be one that cannot be solved, and asks for the most. What is too much is taken evenly off the unsolved tasks' quotas: each may
    have as many attempts as the others, and earlier tasks get the remainder. With a share of 1 nothing changes.
    """
    if share >= 1:
        return list(quotas)
    others = drawn + sum(q for q, never in zip(quotas, unsolved, strict=True) if not never)
    left = math.floor(share / (1 - share) * others)
    places = [i for i, never in enumerate(unsolved) if never]
    capped = [0 if never else q for q, never in zip(quotas, unsolved, strict=True)]
    while left > 0 and (open_places := [i for i in places if capped[i] < quotas[i]]):
        each = max(1, left // len(open_places))
        for i in open_places[:left]:
            more = min(each, quotas[i] - capped[i])
            capped[i] += more
            left -= more
    return capped
