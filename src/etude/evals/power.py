"""How large a difference a number of paired seeds can show, and how many seeds a difference takes: the power of the paired t test."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

from scipy.optimize import root_scalar
from scipy.special import nctdtr, ndtri, stdtrit

from etude.errors import InputError
from etude.evals.checked import finite_number, one_of, probability_between_0_and_1, whole_number
from etude.evals.intervals import seeds_without_spread

Alternative = Literal["greater", "less", "two-sided"]
ALTERNATIVES = ("greater", "less", "two-sided")


def minimum_detectable_difference(
    sd_of_differences: float, seeds: int, *, power: float = 0.8, level: float = 0.95, alternative: Alternative = "greater"
) -> float:
    """The smallest true mean difference that a paired t test over `seeds` seeds finds with chance `power`, in units of the standard deviation given.

    sd_of_differences: standard deviation of treatment - control over seeds (not of either arm). level: one minus the test's error rate, which "two-sided" splits
    over both sides, so that only half of it is in the direction of the difference; "greater" and "less" are mirror images. The result is a size, never negative.
    Under the difference, t follows the noncentral t distribution with noncentrality difference * sqrt(seeds) / sd; the two-sided test counts as having found it
    only when it rejects in the right direction. Fewer than two seeds give infinity. Without spread the sign test decides (see `intervals.mean_interval`): 0 where
    there are seeds enough for it, infinity otherwise.
    Raises InputError for a power that chance alone reaches. SciPy's noncentral t is good to 1e-3 up to a level of 0.999.
    """
    sd = finite_number("sd_of_differences", sd_of_differences, least=0.0)
    n = whole_number("seeds", seeds, least=1)
    tail = _error_in_one_direction(power, level, alternative)
    if sd == 0:
        return 0.0 if n >= seeds_without_spread(tail) else math.inf
    return sd * _detectable_in_sds(n, float(power), tail)


def seeds_needed(
    difference: float,
    sd_of_differences: float,
    *,
    power: float = 0.8,
    level: float = 0.95,
    alternative: Alternative = "greater",
    at_most: int = 10_000,
) -> int | None:
    """The fewest paired seeds at which a true mean difference of this size is found with chance `power`; None when more than `at_most`, and for a difference of 0.

    difference: a size, at least 0. The rest is as for `minimum_detectable_difference`, of which this is the inverse. A standard deviation guessed from a few seeds
    makes this a guess as well: with 5 seeds the true one lies between 0.6 and 2.9 times the one seen (95 %), and the number of seeds goes with its square.
    """
    wanted = finite_number("difference", difference, least=0.0)
    sd = finite_number("sd_of_differences", sd_of_differences, least=0.0)
    tail = _error_in_one_direction(power, level, alternative)
    at_most = whole_number("at_most", at_most, least=1)
    if wanted == 0:
        return None
    if sd == 0:
        enough = max(2, seeds_without_spread(tail))
    else:
        # With the spread known, the normal distribution would give these; having to estimate it takes a few more.
        in_sds = float(ndtri(1 - tail) + ndtri(power)) * sd / wanted
        enough = max(2, math.floor(min(in_sds * in_sds, at_most + 1)))
        while enough <= at_most and _chance_to_find(wanted / sd, enough, tail) < power:
            enough += 1
    return enough if enough <= at_most else None


def _error_in_one_direction(power: float, level: float, alternative: Alternative) -> float:
    one_of("alternative", alternative, ALTERNATIVES)
    tail = (1 - probability_between_0_and_1("level", level)) / (2 if alternative == "two-sided" else 1)
    if probability_between_0_and_1("power", power) <= tail:
        raise InputError(f"a power of {power} takes no difference at all at level {level}; expected more than {tail:.3g}")
    return tail


def _chance_to_find(effect: float, n: int, tail: float) -> float:
    """Power of the paired t test over n seeds for a mean difference of `effect` standard deviations."""
    critical = stdtrit(n - 1, 1 - tail)
    return 1 - float(nctdtr(n - 1, effect * math.sqrt(n), critical))


@lru_cache(maxsize=4096)
def _detectable_in_sds(n: int, power: float, tail: float) -> float:
    if n < 2:
        return math.inf
    # SciPy has no values of the distribution at large noncentralities, so the bracket begins at the normal distribution's answer, which is a little too small.
    upper = max(1e-6, float(ndtri(1 - tail) + ndtri(power)) / math.sqrt(n))
    while _chance_to_find(upper, n, tail) < power:
        upper *= 2
    return float(root_scalar(lambda effect: _chance_to_find(effect, n, tail) - power, bracket=(0.0, upper)).root)
