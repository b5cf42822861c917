"""Intervals for means over seeds, for paired differences, for proportions and for pass@k. `docs/statistics.md` says which is used where, and how well they cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import stdtrit

from etude.errors import InputError
from etude.evals.checked import Floats, finite_values, matched_values, one_of, probability_between_0_and_1, whole_number
from etude.evals.passk import pass_at_k, task_interval

RESOLUTION = 1e-12
"""Values nearer to each other than this share of the largest one are equal: what is left is rounding."""

BOOTSTRAP_PAIRS = 15
"""Fewest pairs that the BCa bootstrap is used for. At this number its 95 % intervals cover 92 % for normal data, with fewer less (docs/statistics.md)."""


@dataclass(frozen=True)
class Interval:
    """An estimate and the range that holds the truth with confidence `level`.

    method: how the ends were made, which can differ from what was asked for where that was impossible: "t", "bootstrap", "wilson", "exact", "tasks", or "sign"
    for values without spread. low and high may be infinite: nothing can be said at this level.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str


def seeds_without_spread(tail: float) -> int:
    """How many equal values exclude everything on one side of them, with error probability `tail` per side.

    n independent values all lie on the same side of their median with probability 2^-n, so that 6 equal differences speak at 95 % (0.025 a side) and 5 do not.
    """
    return math.ceil(-math.log2(tail))


def paired_differences(treatment: ArrayLike, control: ArrayLike) -> Floats:
    """treatment - control, one a seed. Differences that differ from each other, or from 0, by rounding only are made equal, or 0."""
    one, other = matched_values("treatment", treatment, "control", control)
    return without_rounding(one - other, scale=float(np.max(np.abs([one, other]))))


def without_rounding(values: Floats, scale: float) -> Floats:
    """The same values, but all equal, or 0, where they are so up to rounding. scale: size of the numbers that they were computed from."""
    if np.ptp(values) > RESOLUTION * scale:
        return values
    centre = float(values.mean())
    return np.full_like(values, centre if abs(centre) > RESOLUTION * scale else 0.0)


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's t interval for the mean over seeds (Student 1908, Biometrika 6:1).

    values: one number a seed, at least one. Values that are all equal, and a single one, show no spread to build t from: then the interval is that of the sign
    test for their median, which is the value itself where there are enough of them (6 at 95 %) and infinite otherwise.
    Raises InputError for no values, values that are not finite, and a level outside (0, 1).
    """
    array = finite_values("values", values)
    return t_interval(without_rounding(array, scale=float(np.max(np.abs(array)))), probability_between_0_and_1("level", level))


def t_interval(values: Floats, level: float) -> Interval:
    """`mean_interval` of values that are checked and free of rounding."""
    centre = float(values.mean())
    if np.ptp(values) == 0:
        reach = 0.0 if values.size >= seeds_without_spread((1 - level) / 2) else math.inf
        return Interval(float(values[0]), float(values[0]) - reach, float(values[0]) + reach, level, "sign")
    # What scipy.stats.ttest_1samp gives; its bookkeeping takes a millisecond, which simulations of these intervals cannot afford.
    reach = float(stdtrit(values.size - 1, 0.5 + level / 2)) * standard_error(values)
    return Interval(centre, centre - reach, centre + reach, level, "t")


def standard_error(values: Floats) -> float:
    """Of the mean, estimated from at least two values."""
    return float(values.std(ddof=1)) / math.sqrt(values.size)


def paired_difference(
    treatment: ArrayLike, control: ArrayLike, *, level: float = 0.95, method: Literal["t", "bootstrap"] = "t", seed: int = 0, resamples: int = 9999
) -> Interval:
    """Interval for the mean of treatment - control over paired seeds: what the seeds have in common (tasks, draws, starting weights) cancels.

    treatment, control: one number a seed, in the same order. method "t" is Student's t of the differences. "bootstrap" resamples pairs `resamples` times, seeded
    by `seed`, with BCa ends (Efron 1987, J. Am. Stat. Assoc. 82:171); it does not assume normal differences and needs many of them, so that fewer than
    `BOOTSTRAP_PAIRS` fall back on t. Equal differences get the sign test's interval (see `mean_interval`). `Interval.method` says which it was.
    Raises InputError as `mean_interval` does, and for arms of different length.
    """
    one_of("method", method, ("t", "bootstrap"))
    probability_between_0_and_1("level", level)
    differences = paired_differences(treatment, control)
    plain = t_interval(differences, level)
    if method == "t" or plain.method == "sign" or differences.size < BOOTSTRAP_PAIRS:
        return plain
    # To resample pairs is to resample their differences.
    drawn = stats.bootstrap((differences,), np.mean, method="BCa", confidence_level=level, n_resamples=resamples, rng=np.random.default_rng(seed))
    low, high = drawn.confidence_interval
    return Interval(plain.estimate, float(low), float(high), level, "bootstrap")


def proportion_interval(successes: int, trials: int, *, level: float = 0.95, method: Literal["wilson", "exact"] = "wilson") -> Interval:
    """Interval for a rate from independent trials: Wilson's score interval (Wilson 1927, JASA 22:209), or "exact" (Clopper and Pearson 1934, Biometrika 26:404).

    Wilson's covers `level` on average over rates, the exact one always, at the price of width. Samples of one task are not independent trials of a rate over tasks:
    use `pass_at_k_interval` for these.
    Raises InputError unless 0 <= successes <= trials and trials >= 1, both whole.
    """
    one_of("method", method, ("wilson", "exact"))
    probability_between_0_and_1("level", level)
    trials = whole_number("trials", trials, least=1)
    successes = whole_number("successes", successes, least=0)
    if successes > trials:
        raise InputError(f"{successes} successes in {trials} trials; expected no more successes than trials")
    ends = stats.binomtest(successes, trials).proportion_ci(level, method=method)
    return Interval(successes / trials, float(ends.low), float(ends.high), level, method)


def pass_at_k_interval(correct_counts: ArrayLike, samples: int | Sequence[int] | np.ndarray, k: int, *, level: float = 0.95) -> Interval:
    """pass@k over tasks like these: the mean of each task's unbiased estimate, and `passk.task_interval` around it.

    correct_counts: how many of a task's samples were correct, one number a task. samples: how many there were, one number for all or one a task, each at least k.
    Tasks are the unit: the spread between their estimates already holds both parts of the error, that between tasks and that of the samples within each (law of
    total variance), so that nothing is added for the latter and more samples of the same tasks narrow the interval only as far as they can. One task gives [0, 1].
    Raises InputError for counts that are not whole, above their samples or below 0, and where k exceeds the samples.
    """
    probability_between_0_and_1("level", level)
    k = whole_number("k", k, least=1)
    counts = finite_values("correct_counts", correct_counts)
    drawn = finite_values("samples", np.full(counts.size, samples) if np.ndim(samples) == 0 else samples)
    if drawn.size != counts.size:
        raise InputError(f"correct_counts has {counts.size} tasks and samples has {drawn.size}; expected one number for all tasks or one for each")
    pairs = [(whole_number("samples", n, least=1), whole_number("correct_counts", c, least=0)) for n, c in zip(drawn, counts, strict=True)]
    values = [pass_at_k(n, c, k) for n, c in pairs]
    low, high = task_interval(values, samples=max(1, int(drawn.min()) // k), level=level)
    return Interval(math.fsum(values) / len(values), low, high, level, "tasks")


def resampled_items(items: int, rows: int = 1, *, resamples: int = 1000, seed: int = 0) -> Floats:
    """[B, items * rows] how often each row occurs when items are drawn with replacement, all `rows` neighbouring rows of an item together (Efron 1979, Ann. Stat. 7:1).

    Whatever is a ratio of sums over rows has its bootstrap values in one product with these weights, and differences of two such ratios stay paired.
    """
    items, rows = whole_number("items", items, least=1), whole_number("rows", rows, least=1)
    counts = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=whole_number("resamples", resamples, least=1))
    return np.repeat(counts, rows, axis=1).astype(np.float64)


def percentile_ends(values: Floats, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """[C], [C] the ends of the percentile interval of bootstrapped values [B, C]. A column that was never measured has NaN for both."""
    tail = 50 * (1 - probability_between_0_and_1("level", level))
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    known = ~np.isnan(values).all(axis=0)
    if known.any():
        low[known], high[known] = np.nanpercentile(values[:, known], [tail, 100 - tail], axis=0)
    return low, high
