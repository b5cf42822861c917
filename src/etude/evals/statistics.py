"""Comparing two arms over paired seeds: p-values, corrections for many of them, and a verdict.

The rest of the room is exported here as well: intervals (`intervals.py`), learning curves (`curves.py`) and the number of seeds (`power.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import stdtr

from etude.errors import InputError
from etude.evals.checked import Floats, finite_number, matched_values, one_of, probability_between_0_and_1, whole_number
from etude.evals.curves import area_under_curve, budget_to_reach, value_at
from etude.evals.intervals import (
    RESOLUTION,
    Interval,
    mean_interval,
    paired_difference,
    paired_differences,
    pass_at_k_interval,
    proportion_interval,
    seeds_without_spread,
    standard_error,
    t_interval,
    without_rounding,
)
from etude.evals.power import ALTERNATIVES, Alternative, minimum_detectable_difference, seeds_needed

__all__ = [
    "Interval",
    "TestOutcome",
    "Verdict",
    "area_under_curve",
    "benjamini_hochberg",
    "budget_to_reach",
    "holm",
    "judge_difference",
    "mcnemar",
    "mean_interval",
    "minimum_detectable_difference",
    "paired_difference",
    "paired_p_value",
    "pass_at_k_interval",
    "proportion_interval",
    "seeds_needed",
    "value_at",
]

Verdict = Literal["supported", "not supported", "inconclusive"]


def paired_p_value(
    treatment: ArrayLike, control: ArrayLike, *, alternative: Alternative = "greater", method: Literal["t", "permutation"] = "t", seed: int = 0
) -> float:
    """How often chance alone would show a mean difference, treatment - control over paired seeds, at least as far in the direction of `alternative`.

    method "t" is the paired t test. "permutation" flips the signs of the differences (Fisher 1935, The Design of Experiments, section 21): it assumes only that,
    without an effect, the arms could be swapped within a seed. It is exact over all 2^n flips up to 13 seeds, and beyond over 9999 of them drawn with `seed`. Its
    smallest two-sided value is 2^(1-n): fewer than 6 seeds never fall below 0.05. Differences that are all equal, and a single one, always use it.
    Raises InputError for arms of different length, without values, or with values that are not finite.
    """
    one_of("alternative", alternative, ALTERNATIVES)
    one_of("method", method, ("t", "permutation"))
    return _p_value(paired_differences(treatment, control), alternative, method, seed)


def _p_value(differences: Floats, alternative: Alternative, method: Literal["t", "permutation"] = "t", seed: int = 0) -> float:
    if method == "t" and np.ptp(differences) > 0:
        t = float(differences.mean()) / standard_error(differences)
        degrees = differences.size - 1
        if alternative == "two-sided":
            return 2 * float(stdtr(degrees, -abs(t)))
        return float(stdtr(degrees, -t if alternative == "greater" else t))
    largest = float(np.max(np.abs(differences)))
    if largest == 0:
        return 1.0
    if differences.size == 1:
        # SciPy refuses a single pair. It has two flips: what was seen and its mirror image.
        return 0.5 if alternative == ("greater" if differences[0] > 0 else "less") else 1.0
    # As whole multiples of the smallest step that counts, so that sums of flipped differences tie exactly where they should.
    steps = np.rint(differences / (largest * RESOLUTION))
    test = stats.permutation_test(
        (steps, np.zeros_like(steps)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values under which the chance of any false discovery at all stays below the level (Holm 1979, Scand. J. Stat. 6:65), in the order given.

    The i-th smallest of m counts m - i + 1 times, and none less than a smaller one. Holds for dependent tests, such as arms that share a baseline.
    """
    names, values = _checked_p_values(p_values)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1)))
    return dict(zip(names, adjusted.tolist(), strict=True))


def benjamini_hochberg(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values under which the expected share of false ones among the discoveries stays below the level (Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57:289).

    In the order given. Holds for independent tests and those positively dependent, as comparisons with one baseline are.
    """
    names, values = _checked_p_values(p_values)
    return dict(zip(names, stats.false_discovery_control(values, method="bh").tolist(), strict=True))


def _checked_p_values(p_values: Mapping[str, float]) -> tuple[list[str], Floats]:
    if not p_values:
        raise InputError("there are no p-values to adjust; expected at least one")
    for name, value in p_values.items():
        if not 0 <= value <= 1:
            raise InputError(f"the p-value of {name!r} is {value}; expected a number from 0 to 1")
    return list(p_values), np.array(list(p_values.values()), dtype=np.float64)


@dataclass(frozen=True)
class TestOutcome:
    """What paired seeds say about a claim that a treatment is better than its control.

    difference: treatment - control with its two-sided interval, whichever direction is better. p_value: two-sided t test against the margin; below 1 - level exactly
    where the interval excludes the margin. detectable: the smallest true gain that would be called supported with the power asked for, given the spread seen.
    seeds: pairs used. seeds_to_settle: for an inconclusive verdict, how many seeds in all would settle it with that power if the difference and the spread are
    what they look like; None when settled, when one seed shows no spread, or beyond 10,000.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes called Test... for tests of its own

    difference: Interval
    p_value: float
    verdict: Verdict
    detectable: float
    seeds: int
    seeds_to_settle: int | None


def judge_difference(
    treatment: ArrayLike,
    control: ArrayLike,
    *,
    better: Literal["higher", "lower"] = "higher",
    margin: float = 0.0,
    smallest_effect: float | None = None,
    level: float = 0.95,
    power: float = 0.8,
) -> TestOutcome:
    """Is the treatment better than the control by more than `margin`? Read off the two-sided interval of the gain over paired seeds, so that all can check it.

    gain: treatment - control where higher is better, control - treatment where lower is. margin: what the gain must exceed; below 0 it asks for "not worse by more
    than". smallest_effect: the smallest gain worth having, by default the margin.

    - not supported: the interval holds no gain above the margin, or ends below the smallest effect. That is evidence against, as in a test of equivalence
      (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657), not absence of evidence; it goes before "supported", so that a real but worthless gain is not.
    - supported: the interval lies above the margin. An arm that is no better gets this with chance (1 - level) / 2, 2.5 % by default, where differences are symmetric;
      a second look, at `seeds_to_settle`, about doubles that. docs/statistics.md has both measured, and what skewed differences do.
    - inconclusive: neither.

    Raises InputError for arms that do not pair up, values that are not finite, and levels or powers outside (0, 1).
    """
    one_of("better", better, ("higher", "lower"))
    margin = finite_number("margin", margin)
    # From here on everything is counted from the margin.
    worth = 0.0 if smallest_effect is None else max(0.0, finite_number("smallest_effect", smallest_effect) - margin)
    probability_between_0_and_1("level", level)
    treatment, control = matched_values("treatment", treatment, "control", control)
    sign = 1 if better == "higher" else -1
    above = without_rounding(sign * (treatment - control) - margin, scale=max(abs(margin), float(np.max(np.abs([treatment, control])))))
    seeds = above.size
    interval = t_interval(above, level)
    spread = float(above.std(ddof=1)) if np.ptp(above) > 0 else 0.0

    verdict: Verdict = "inconclusive"
    if interval.high <= 0 or interval.high < worth:
        verdict = "not supported"
    elif interval.low > 0:
        verdict = "supported"

    settled = None
    if verdict == "inconclusive" and seeds > 1:
        settled = _seeds_to_settle(interval.estimate, worth, spread, seeds, level=level, power=power)
    return TestOutcome(
        difference=paired_difference(treatment, control, level=level),
        p_value=_p_value(above, "two-sided"),
        verdict=verdict,
        detectable=margin + minimum_detectable_difference(spread, seeds, power=power, level=level, alternative="two-sided"),
        seeds=seeds,
        seeds_to_settle=settled,
    )


def _seeds_to_settle(gain: float, worth: float, spread: float, seeds: int, *, level: float, power: float) -> int | None:
    """Seeds in all at which a gain over the margin is supported, or a smaller one than is worth having refuted, whichever takes fewer."""
    if spread == 0:
        return seeds_without_spread((1 - level) / 2)
    effect = max(gain, worth - gain)
    needed = seeds_needed(effect, spread, power=power, level=level, alternative="two-sided") if effect > 0 else None
    return None if needed is None else max(seeds + 1, needed)


def mcnemar(gained: int, lost: int) -> float:
    """How often chance alone would part pairs that differ as unevenly as this, two-sided and exact (McNemar 1947, Psychometrika 12:153).

    gained, lost: pairs that changed in one direction, and in the other. Those that did not change say nothing. 1 where none did.
    """
    whole_number("gained", gained, least=0)
    whole_number("lost", lost, least=0)
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
