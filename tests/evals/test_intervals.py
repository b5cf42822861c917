from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from etude.errors import InputError
from etude.evals.intervals import BOOTSTRAP_PAIRS, Interval, mean_interval, paired_difference, pass_at_k_interval, proportion_interval
from etude.evals.passk import pass_at_k, task_interval, wilson_interval

VALUES = st.lists(st.integers(-1000, 1000).map(lambda i: i / 64), min_size=2, max_size=12)
PAIRS = st.integers(1, 12).flatmap(lambda n: st.tuples(*[st.lists(st.integers(-640, 640).map(lambda i: i / 64), min_size=n, max_size=n)] * 2))


def plausible(count: int, trials: int, probability: float) -> bool:
    """Would `count` successes happen by chance more than once in ten thousand such simulations?"""
    return stats.binomtest(count, trials, probability).pvalue > 1e-4


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def test_t_interval_by_hand():
    # Mean 2, standard deviation 1, so that the standard error is 1 / sqrt(3); t of 2 degrees of freedom at 97.5 % is 4.30265.
    interval = mean_interval([1, 2, 3])
    assert (interval.estimate, interval.level, interval.method) == (2.0, 0.95, "t")
    assert interval.low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-5)
    assert interval.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-5)
    # t of 4 degrees of freedom at 95 % is 2.13185; standard deviation sqrt(2.5), standard error sqrt(0.5).
    assert mean_interval(np.arange(5), level=0.9).high == pytest.approx(2 + 2.13185 * math.sqrt(0.5), abs=1e-5)


@pytest.mark.parametrize("n", [2, 3, 10, 300])
def test_paired_difference_is_scipys_paired_t(n):
    treatment, control = np.random.default_rng([30, n]).normal(size=(2, n))
    interval, theirs = paired_difference(treatment, control, level=0.9), stats.ttest_rel(treatment, control).confidence_interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_paired_difference_by_hand():
    # Differences 1, 2, 3: what the seeds share (10, 20, 30) cancels.
    assert paired_difference([11, 22, 33], [10, 20, 30]) == mean_interval([1, 2, 3])


def test_values_without_spread_are_judged_by_their_number():
    """2^-n a side: six equal values speak at 95 %, five do not, and a single one never does."""
    for n, level, certain in ((1, 0.95, False), (5, 0.95, False), (6, 0.95, True), (5, 0.9, True), (7, 0.99, False), (8, 0.99, True)):
        for interval in (mean_interval([0.3] * n, level=level), paired_difference([0.5] * n, [0.2] * n, level=level, method="bootstrap")):
            reach = 0.0 if certain else math.inf
            assert interval.method == "sign"
            assert interval.estimate == pytest.approx(0.3, abs=1e-12)
            assert (interval.low, interval.high) == (interval.estimate - reach, interval.estimate + reach)


def test_rounding_is_not_spread():
    treatment, control = np.array([0.3, 0.4, 0.5, 1.1]), np.array([0.2, 0.3, 0.4, 1.0])
    assert np.ptp(treatment - control) > 0
    assert paired_difference(treatment, control).method == "sign"
    assert paired_difference([0.1 + 0.2, 0.3], [0.3, 0.3]).estimate == 0.0


@pytest.mark.parametrize(("n", "level"), [(2, 0.95), (5, 0.95), (5, 0.8), (20, 0.99)])
def test_t_interval_of_normal_values_covers_its_level(n, level):
    generator, trials = np.random.default_rng(31), 4000
    covered = sum(holds(mean_interval(row, level=level), 3.0) for row in generator.normal(3.0, 2.0, size=(trials, n)))
    assert plausible(covered, trials, level)


def test_pairing_removes_what_the_seeds_share():
    generator, trials, n = np.random.default_rng(32), 2000, 5
    shared = generator.normal(0, 10, size=(trials, n))
    intervals = [
        paired_difference(s + 0.5 + a, s + b) for s, a, b in zip(shared, generator.normal(size=(trials, n)), generator.normal(size=(trials, n)), strict=True)
    ]
    assert plausible(sum(holds(i, 0.5) for i in intervals), trials, 0.95)
    assert np.median([i.high - i.low for i in intervals]) < 5  # unpaired, the spread of 10 would make it 20 and more


def test_bootstrap_of_many_pairs_covers_nearly_its_level_and_of_few_is_t():
    generator, trials, n = np.random.default_rng(33), 150, 40
    draws = generator.normal(size=(trials, n)) - generator.normal(size=(trials, n)) + 1
    intervals = [paired_difference(row, np.zeros(n), method="bootstrap", resamples=1999) for row in draws]
    assert all(i.method == "bootstrap" for i in intervals)
    assert 0.87 <= np.mean([holds(i, 1.0) for i in intervals]) <= 0.99  # 94 % is expected (docs/statistics.md), and three standard deviations are 6 points
    few = draws[0, : BOOTSTRAP_PAIRS - 1]
    assert paired_difference(few, np.zeros(few.size), method="bootstrap") == mean_interval(few)


def test_bootstrap_repeats_itself_and_leans_with_the_skew():
    skewed = np.random.default_rng(34).exponential(size=40)
    first = paired_difference(skewed, np.zeros(40), method="bootstrap", seed=3)
    assert first == paired_difference(skewed, np.zeros(40), method="bootstrap", seed=3)
    assert first != paired_difference(skewed, np.zeros(40), method="bootstrap", seed=4)
    assert first.high - first.estimate > first.estimate - first.low


@settings(deadline=None)
@given(PAIRS, st.integers(-64, 64), st.sampled_from([0.25, 2.0, 1024.0]), st.randoms(use_true_random=False))
def test_paired_difference_keeps_to_shift_scale_order_and_sign(pairs, shift, scale, order):
    treatment, control = np.array(pairs[0]), np.array(pairs[1])
    plain = paired_difference(treatment, control)
    moved = paired_difference((treatment + shift) * scale, (control + shift) * scale)
    places = order.sample(range(treatment.size), treatment.size)
    shuffled = paired_difference(treatment[places], control[places])
    swapped = paired_difference(control, treatment)
    ends = (plain.estimate, plain.low, plain.high)
    assert (moved.estimate, moved.low, moved.high) == pytest.approx([end * scale for end in ends], rel=1e-9, abs=1e-9)
    assert (shuffled.estimate, shuffled.low, shuffled.high) == pytest.approx(ends, rel=1e-9, abs=1e-9)
    assert (swapped.estimate, swapped.low, swapped.high) == pytest.approx((-plain.estimate, -plain.high, -plain.low), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(VALUES)
def test_a_higher_level_is_wider_and_holds_the_mean(values):
    narrow, wide = mean_interval(values, level=0.8), mean_interval(values, level=0.99)
    assert wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high


def test_proportion_by_hand():
    # 8 of 10, z = 1.96: centre (0.8 + 0.19208) / 1.38416, half-width sqrt(0.061466 + 0.036895) / 1.38416.
    wilson = proportion_interval(8, 10)
    assert (wilson.estimate, wilson.method) == (0.8, "wilson")
    assert (wilson.low, wilson.high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    # None of 10, exactly: (1 - high)^10 = 0.025.
    exact = proportion_interval(0, 10, method="exact")
    assert (exact.low, exact.high, exact.method) == (0.0, pytest.approx(1 - 0.025**0.1), "exact")


@settings(deadline=None)
@given(st.integers(1, 200), st.data())
def test_wilson_is_the_one_used_on_effective_trials(trials, data):
    successes = data.draw(st.integers(0, trials))
    interval = proportion_interval(successes, trials)
    assert (interval.low, interval.high) == pytest.approx(wilson_interval(successes / trials, trials), abs=1e-9)


def test_proportion_intervals_cover():
    """No simulation: the chance of every count is known."""
    trials, rates = 20, np.linspace(0.005, 0.995, 199)
    chances = stats.binom.pmf(np.arange(trials + 1)[:, None], trials, rates)
    coverage = {}
    for method in ("wilson", "exact"):
        intervals = [proportion_interval(c, trials, method=method) for c in range(trials + 1)]
        inside = np.array([[holds(i, rate) for rate in rates] for i in intervals])
        coverage[method] = (chances * inside).sum(axis=0)
    assert coverage["wilson"].mean() == pytest.approx(0.95, abs=0.01)
    assert coverage["exact"].min() >= 0.95


def test_pass_at_k_by_hand():
    # 2 of 4 solved: 1 - C(2,2)/C(4,2) = 5/6; 0 of 4: 0; 1 of 3: 1 - C(2,2)/C(3,2) = 2/3.
    interval = pass_at_k_interval([2, 0, 1], [4, 4, 3], 2)
    assert (interval.estimate, interval.method) == (pytest.approx((5 / 6 + 0 + 2 / 3) / 3), "tasks")
    assert (interval.low, interval.high) == task_interval([5 / 6, 0, 2 / 3], samples=1)
    alone = pass_at_k_interval(np.array([3]), 4, 1)
    assert (alone.estimate, alone.low, alone.high) == (0.75, 0.0, 1.0)


@pytest.mark.parametrize(("tasks", "samples", "k", "a", "b", "level"), [(40, 8, 2, 0.5, 0.5, 0.95), (100, 8, 4, 1.0, 4.0, 0.95), (40, 4, 1, 1.0, 1.0, 0.8)])
def test_pass_at_k_intervals_cover_about_their_level(tasks, samples, k, a, b, level):
    """Task rates from Beta(a, b), so that the true pass@k is 1 - E[(1 - rate)^k] = 1 - prod (b + i) / (a + b + i)."""
    generator, trials = np.random.default_rng(35), 600
    truth = 1 - math.prod((b + i) / (a + b + i) for i in range(k))
    counts = generator.binomial(samples, generator.beta(a, b, size=(trials, tasks)))
    intervals = [pass_at_k_interval(row, samples, k, level=level) for row in counts]
    assert np.mean([i.estimate for i in intervals]) == pytest.approx(truth, abs=0.01)
    # Wilson's form is a little wide on purpose; three standard deviations of the simulation on either side.
    error = 3 * math.sqrt(level * (1 - level) / trials)
    assert level - 0.01 - error <= np.mean([holds(i, truth) for i in intervals]) <= level + 0.02 + error


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=20), st.integers(1, 6))
def test_pass_at_k_rises_with_k_and_ignores_order(counts, k):
    interval = pass_at_k_interval(counts, 6, k)
    assert interval.estimate == pytest.approx(np.mean([pass_at_k(6, c, k) for c in counts]))
    assert interval.estimate <= pass_at_k_interval(counts, 6, 6).estimate + 1e-12
    assert 0 <= interval.low <= interval.high <= 1
    backwards = pass_at_k_interval(counts[::-1], 6, k)
    assert (backwards.low, backwards.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "values must be a row of at least one number"),
        (lambda: mean_interval([[1.0, 2.0]]), r"shape \(1, 2\)"),
        (lambda: mean_interval(["a"]), "values must be a row of numbers"),
        (lambda: mean_interval([1.0, math.nan]), "number 2 of 2 is nan"),
        (lambda: mean_interval([1.0, 2.0], level=1.0), "level must lie between 0 and 1"),
        (lambda: mean_interval([1.0, 2.0], level=95), "got 95"),
        (lambda: paired_difference([1, 2, 3], [1, 2]), "treatment has 3 values and control has 2"),
        (lambda: paired_difference([1, 2], [1, math.inf]), "control must be finite"),
        (lambda: paired_difference([1], [2], method="bca"), "method must be one of 't', 'bootstrap'"),
        (lambda: proportion_interval(3, 2), "3 successes in 2 trials"),
        (lambda: proportion_interval(0, 0), "trials must be a whole number of at least 1"),
        (lambda: proportion_interval(1.5, 2), "successes must be a whole number"),
        (lambda: pass_at_k_interval([1, 2], [4, 4, 4], 1), "2 tasks and samples has 3"),
        (lambda: pass_at_k_interval([1, 5], 4, 1), "5 correct among 4 samples"),
        (lambda: pass_at_k_interval([1, 2], 4, 5), "pass@5"),
        (lambda: pass_at_k_interval([1, 2], 4, 0), "k must be a whole number"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
