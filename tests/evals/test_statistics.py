from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from etude.errors import InputError
from etude.evals.statistics import (
    TestOutcome,
    benjamini_hochberg,
    holm,
    judge_difference,
    minimum_detectable_difference,
    paired_difference,
    paired_p_value,
    seeds_needed,
)

DIFFERENCES = st.lists(st.integers(-20, 20).map(lambda i: i / 10), min_size=2, max_size=7)
P_VALUES = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=10)


def verdict_counts(draws: np.ndarray, **options: float) -> dict[str, int]:
    verdicts = [judge_difference(row, np.zeros(row.size), **options).verdict for row in draws]
    return {verdict: verdicts.count(verdict) for verdict in ("supported", "not supported", "inconclusive")}


def test_t_p_value_by_hand():
    # Differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641; with 2 degrees of freedom P(T > t) = 1/2 - t / (2 sqrt(2 + t^2)) = 1/2 - sqrt(12/14) / 2.
    one_sided = 0.5 - math.sqrt(12 / 14) / 2
    assert paired_p_value([1, 2, 3], [0, 0, 0]) == pytest.approx(one_sided)
    assert paired_p_value([1, 2, 3], [0, 0, 0], alternative="less") == pytest.approx(1 - one_sided)
    assert paired_p_value([1, 2, 3], [0, 0, 0], alternative="two-sided") == pytest.approx(2 * one_sided)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_t_p_value_is_scipys(n, alternative):
    treatment, control = np.random.default_rng([50, n]).normal(size=(2, n))
    assert paired_p_value(treatment, control, alternative=alternative) == pytest.approx(stats.ttest_rel(treatment, control, alternative=alternative).pvalue)


def test_permutation_p_value_by_hand():
    # Of the 8 flips of 1, 2, 4 only the one seen sums to 7; of those of 1, 2, -4, which sum to -1, five sum to -1 or more: -1, 1, 3, 5, 7.
    assert paired_p_value([1, 2, 4], [0, 0, 0], method="permutation") == 1 / 8
    assert paired_p_value([1, 2, 0], [0, 0, 4], method="permutation") == 5 / 8
    assert paired_p_value([1, 2, 4], [0, 0, 0], method="permutation", alternative="two-sided") == 2 / 8
    assert paired_p_value([1, 2, 4], [0, 0, 0], method="permutation", alternative="less") == 1


@pytest.mark.parametrize("method", ["t", "permutation"])
def test_p_values_without_spread_are_those_of_the_signs(method):
    assert paired_p_value([0.3] * 4, [0.2] * 4, method=method) == 1 / 16
    assert paired_p_value([0.3] * 4, [0.2] * 4, method=method, alternative="two-sided") == 2 / 16
    assert paired_p_value([0.2] * 4, [0.3] * 4, method=method) == 1
    assert [paired_p_value([0.5] * n, [0.5] * n, method=method) for n in (1, 3)] == [1, 1]
    assert [paired_p_value([1], [0], method=method, alternative=a) for a in ("greater", "less", "two-sided")] == [0.5, 1, 1]


@settings(deadline=None, max_examples=25)
@given(DIFFERENCES.filter(lambda d: len(d) <= 5), st.sampled_from(["greater", "two-sided"]))
def test_the_permutation_test_is_exact(differences, alternative):
    """Without an effect each flip is as likely as any other, so that of the 2^n at most a share p gets a p-value of p or less: ties and rounding included."""
    flips = [np.array(signs) * differences for signs in itertools.product((-1, 1), repeat=len(differences))]
    p_values = np.array([paired_p_value(f, np.zeros(len(f)), method="permutation", alternative=alternative) for f in flips])
    assert all(np.mean(p_values <= p + 1e-12) <= p + 1e-12 for p in p_values)


def test_many_seeds_are_flipped_at_random_and_repeatably():
    draws = np.random.default_rng(51).normal(0.5, 1, size=30)
    estimate = paired_p_value(draws, np.zeros(30), method="permutation", seed=1)
    assert estimate == paired_p_value(draws, np.zeros(30), method="permutation", seed=1)
    assert estimate == pytest.approx(paired_p_value(draws, np.zeros(30)), abs=0.01)


def test_holm_and_benjamini_hochberg_by_hand():
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    # Ascending 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and no less than the one before.
    assert holm(p_values) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    # Times 4/1, 4/2, 4/3, 4/4: 0.02, 0.02, 0.04, 0.04, and no more than the one after.
    assert benjamini_hochberg(p_values) == pytest.approx({"a": 0.02, "b": 0.04, "c": 0.04, "d": 0.02})
    assert list(holm(p_values)) == list(benjamini_hochberg(p_values)) == ["a", "b", "c", "d"]
    assert holm({"a": 0.5, "b": 0.7}) == {"a": 1.0, "b": 1.0}


@settings(deadline=None)
@given(P_VALUES)
def test_corrections_keep_order_and_their_rank_among_each_other(p_values):
    strict, lenient = holm(p_values), benjamini_hochberg(p_values)
    for one, other in itertools.pairwise(sorted(p_values, key=p_values.__getitem__)):
        assert strict[one] <= strict[other]
        assert lenient[one] <= lenient[other] + 1e-15
    assert all(p - 1e-15 <= lenient[name] <= strict[name] + 1e-15 <= min(1, len(p_values) * p) + 2e-15 for name, p in p_values.items())


def test_holm_keeps_the_chance_of_any_false_discovery():
    """Four arms that share a baseline and do nothing."""
    generator, trials = np.random.default_rng(52), 2000
    false = 0
    for _ in range(trials):
        baseline, arms = generator.normal(size=5), generator.normal(size=(4, 5))
        false += min(holm({str(i): paired_p_value(arm, baseline) for i, arm in enumerate(arms)}).values()) <= 0.05
    assert stats.binomtest(false, trials, 0.05, alternative="greater").pvalue > 1e-3


def test_verdicts_by_hand():
    # Differences 1, 2, 3: 2 +- 4.30265 / sqrt(3) = 2 +- 2.4841.
    outcome = judge_difference([11, 22, 33], [10, 20, 30])
    assert (outcome.verdict, outcome.seeds) == ("inconclusive", 3)
    assert (outcome.difference.low, outcome.difference.high) == (pytest.approx(-0.4841, abs=1e-4), pytest.approx(4.4841, abs=1e-4))
    assert outcome.p_value == pytest.approx(2 * (0.5 - math.sqrt(12 / 14) / 2))
    assert outcome.detectable == minimum_detectable_difference(1.0, 3, alternative="two-sided")
    assert outcome.seeds_to_settle == seeds_needed(2.0, 1.0, alternative="two-sided") > 3
    assert judge_difference([11, 22, 33], [10, 20, 30], margin=-0.5).verdict == "supported"
    assert judge_difference([11, 22, 33], [10, 20, 30], level=0.9).verdict == "supported"
    assert judge_difference([11, 22, 33], [10, 20, 30], margin=4.5).verdict == "not supported"
    assert judge_difference([11, 22, 33], [10, 20, 30], smallest_effect=4.5).verdict == "not supported"
    assert judge_difference([11, 22, 33], [10, 20, 30], smallest_effect=4.4).verdict == "inconclusive"


def test_a_gain_that_is_real_and_not_worth_having_is_not_supported():
    gains = [0.010, 0.011, 0.012, 0.010]
    assert judge_difference(gains, [0] * 4).verdict == "supported"
    assert judge_difference(gains, [0] * 4, smallest_effect=0.05).verdict == "not supported"


def test_where_lower_is_better_the_difference_keeps_its_sign():
    outcome = judge_difference([1.0, 1.1, 1.05, 1.02], [2.0, 2.2, 2.1, 2.0], better="lower", margin=0.5)
    assert outcome.verdict == "supported"
    assert outcome.difference.high < -0.5
    assert judge_difference([1.0, 1.1, 1.05, 1.02], [2.0, 2.2, 2.1, 2.0], margin=0.5).verdict == "not supported"


def test_the_larger_a_margin_the_more_must_be_detectable():
    plain, with_margin = (judge_difference([1, 2, 3, 4], [0, 0, 0, 0], margin=margin).detectable for margin in (0.0, 0.75))
    assert with_margin == pytest.approx(plain + 0.75)


def test_without_spread_the_verdict_waits_for_six_seeds():
    few, enough = judge_difference([0.3] * 3, [0.2] * 3), judge_difference([0.3] * 6, [0.2] * 6)
    assert (few.verdict, few.p_value, few.detectable, few.seeds_to_settle) == ("inconclusive", 0.25, math.inf, 6)
    assert (enough.verdict, enough.p_value, enough.detectable, enough.seeds_to_settle) == ("supported", 1 / 32, 0.0, None)
    # 0.3 - 0.2 is not 0.1 in floating point, but it is no gain above a margin of 0.1, nor one below it.
    assert judge_difference([0.3] * 6, [0.2] * 6, margin=0.1).p_value == 1
    assert judge_difference([0.5] * 6, [0.5] * 6).verdict == "not supported"


def test_one_seed_settles_nothing():
    outcome = judge_difference([0.9], [0.1])
    assert (outcome.verdict, outcome.difference.low, outcome.detectable, outcome.seeds_to_settle) == ("inconclusive", -math.inf, math.inf, None)


@settings(deadline=None)
@given(DIFFERENCES, st.sampled_from([-0.5, 0.0, 0.3]), st.sampled_from([0.8, 0.95]), st.sampled_from(["higher", "lower"]))
def test_interval_p_value_and_verdict_agree(differences, margin, level, better):
    outcome = judge_difference(differences, [0.0] * len(differences), margin=margin, level=level, better=better)
    bound = margin if better == "higher" else -margin
    assert outcome.difference == paired_difference(differences, [0.0] * len(differences), level=level)
    if outcome.difference.method == "t":
        assert (outcome.p_value < 1 - level) == (not outcome.difference.low <= bound <= outcome.difference.high)
        gain_ends = (outcome.difference.low, outcome.difference.high) if better == "higher" else (-outcome.difference.high, -outcome.difference.low)
        assert (outcome.verdict == "supported") == (gain_ends[0] > margin)
        assert (outcome.verdict == "not supported") == (gain_ends[1] <= margin)
    if outcome.seeds_to_settle is not None:
        assert outcome.verdict == "inconclusive"
        assert outcome.seeds_to_settle > outcome.seeds


def test_arms_that_are_alike_are_supported_in_one_of_forty():
    draws = np.random.default_rng(53).normal(size=(3000, 5))
    counts = verdict_counts(draws)
    assert stats.binomtest(counts["supported"], 3000, 0.025).pvalue > 1e-4
    assert stats.binomtest(counts["not supported"], 3000, 0.025).pvalue > 1e-4
    assert counts["supported"] <= 0.05 * 3000


@pytest.mark.parametrize("tasks", [4, 16])
def test_coarse_scores_do_not_make_arms_that_are_alike_supported(tasks):
    """Shares of a few tasks: seeds often agree exactly, and spread of 0 must not pass for certainty."""
    generator, trials = np.random.default_rng(54), 1500
    treatment, control = generator.binomial(tasks, 0.7, size=(2, trials, 3)) / tasks
    supported = sum(judge_difference(a, b).verdict == "supported" for a, b in zip(treatment, control, strict=True))
    assert supported <= 0.05 * trials


def test_what_is_detectable_is_supported_with_the_power_stated():
    generator, trials, seeds = np.random.default_rng(55), 1500, 5
    planted = judge_difference([1, 2, 3, 4, 5], [0] * 5, margin=0.2).detectable - 0.2  # for a spread of sqrt(2.5)
    counts = verdict_counts(generator.normal(planted + 0.2, math.sqrt(2.5), size=(trials, seeds)), margin=0.2)
    assert stats.binomtest(counts["supported"], trials, 0.8).pvalue > 1e-4


def test_no_effect_is_found_out_with_the_power_stated():
    """With seeds for the smallest effect worth having, an arm without any is refuted as often as one with it is supported, and one with it hardly ever is."""
    generator, trials, worth = np.random.default_rng(56), 1500, 0.8
    seeds = seeds_needed(worth, 1.0, alternative="two-sided")
    assert seeds == 15
    # The power at whole seeds is at least what was asked for: here 82.1 % (noncentral t, 14 degrees of freedom).
    power = float(stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, worth * math.sqrt(seeds)))
    without = verdict_counts(generator.normal(0, 1, size=(trials, seeds)), smallest_effect=worth)
    assert stats.binomtest(without["not supported"], trials, power).pvalue > 1e-4
    with_it = verdict_counts(generator.normal(worth, 1, size=(trials, seeds)), smallest_effect=worth)
    assert stats.binomtest(with_it["not supported"], trials, 0.025).pvalue > 1e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_p_value([1, 2], [1]), "treatment has 2 values and control has 1"),
        (lambda: paired_p_value([], []), "treatment must be a row of at least one number"),
        (lambda: paired_p_value([1, math.nan], [1, 2]), "treatment must be finite"),
        (lambda: paired_p_value([1, 2], [1, 2], alternative="more"), "alternative must be one of"),
        (lambda: paired_p_value([1, 2], [1, 2], method="z"), "method must be one of 't', 'permutation'"),
        (lambda: holm({}), "no p-values"),
        (lambda: holm({"a": 0.5, "b": 1.5}), "p-value of 'b' is 1.5"),
        (lambda: benjamini_hochberg({"a": math.nan}), "p-value of 'a' is nan"),
        (lambda: judge_difference([1, 2], [1, 2, 3]), "treatment has 2 values and control has 3"),
        (lambda: judge_difference([1, 2], [1, math.nan]), "control must be finite"),
        (lambda: judge_difference([1, 2], [1, 3], level=0), "level must lie between 0 and 1"),
        (lambda: judge_difference([1, 2], [1, 3], power=1.2), "power must lie between 0 and 1"),
        (lambda: judge_difference([1, 2], [1, 3], margin=math.nan), "margin must be a finite number"),
        (lambda: judge_difference([1, 2], [1, 3], smallest_effect=math.inf), "smallest_effect must be a finite number"),
        (lambda: judge_difference([1, 2], [1, 3], better="more"), "better must be one of 'higher', 'lower'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_an_outcome_cannot_be_changed_afterwards():
    outcome = judge_difference([1, 2, 3], [0, 0, 0])
    with pytest.raises(AttributeError):
        outcome.verdict = "supported"
    assert isinstance(outcome, TestOutcome)
