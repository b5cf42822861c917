from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from etude.errors import InputError
from etude.evals.power import minimum_detectable_difference, seeds_needed
from etude.evals.statistics import paired_p_value


@pytest.mark.parametrize(
    ("seeds", "difference", "alternative"),
    # From the tables of Cohen (1988): d = 0.5 takes 27 pairs one-sided and 34 two-sided at 80 % power, d = 0.8 takes 12 and 15.
    [(27, 0.5, "greater"), (34, 0.5, "two-sided"), (12, 0.8, "less"), (15, 0.8, "two-sided")],
)
def test_textbook_numbers_of_pairs(seeds, difference, alternative):
    assert seeds_needed(difference, 1.0, alternative=alternative) == seeds
    assert (
        minimum_detectable_difference(1.0, seeds, alternative=alternative)
        <= difference
        < minimum_detectable_difference(1.0, seeds - 1, alternative=alternative)
    )


@pytest.mark.parametrize(("seeds", "power", "alternative"), [(3, 0.8, "greater"), (5, 0.8, "two-sided"), (10, 0.5, "less")])
def test_a_planted_difference_is_found_with_the_power_stated(seeds, power, alternative):
    generator, trials, sd = np.random.default_rng(41), 2000, 0.3
    planted = minimum_detectable_difference(sd, seeds, power=power, alternative=alternative)
    sign = -1 if alternative == "less" else 1
    draws = generator.normal(sign * planted, sd, size=(trials, seeds))
    found = sum(paired_p_value(row, np.zeros(seeds), alternative=alternative) <= 0.05 and sign * row.mean() > 0 for row in draws)
    assert stats.binomtest(found, trials, power).pvalue > 1e-4


@settings(deadline=None, max_examples=40)
@example(effect=0.05, sd=1.0, power=0.5, level=0.95, alternative="two-sided")
@given(
    st.floats(0.05, 20), st.floats(0.01, 50), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.8, 0.95, 0.99]), st.sampled_from(["greater", "two-sided"])
)
def test_seeds_needed_undoes_the_detectable_difference(effect, sd, power, level, alternative):
    given_to_both = {"power": power, "level": level, "alternative": alternative}
    seeds = seeds_needed(effect * sd, sd, **given_to_both)
    assert seeds is not None
    assert minimum_detectable_difference(sd, seeds, **given_to_both) <= effect * sd
    assert seeds == 2 or minimum_detectable_difference(sd, seeds - 1, **given_to_both) > effect * sd


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 50), st.integers(2, 60))
def test_the_detectable_difference_scales_and_shrinks(sd, seeds):
    detectable = minimum_detectable_difference(sd, seeds)
    assert detectable == pytest.approx(sd * minimum_detectable_difference(1.0, seeds))
    assert minimum_detectable_difference(sd, seeds + 1) < detectable
    assert minimum_detectable_difference(sd, seeds, power=0.9) > detectable
    assert minimum_detectable_difference(sd, seeds, alternative="two-sided") > detectable
    assert minimum_detectable_difference(sd, seeds, alternative="less") == detectable


def test_for_many_seeds_it_is_the_normal_approximation():
    # (z of 95 % + z of 80 %) / sqrt(n)
    assert minimum_detectable_difference(1.0, 10_000) == pytest.approx((1.644854 + 0.841621) / 100, rel=1e-3)


def test_where_nothing_can_be_found():
    assert minimum_detectable_difference(1.0, 1) == math.inf
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.5, 1.0, at_most=26) is None
    assert seeds_needed(0.5, 1.0, at_most=27) == 27
    assert seeds_needed(0.5, 1.0, at_most=1) is None
    assert seeds_needed(1e-300, 1e300) is None


def test_without_spread_the_signs_decide():
    """All of n seeds agree with chance 2^-n: 5 seeds go below 0.05, and 6 below 0.025."""
    assert (minimum_detectable_difference(0.0, 4), minimum_detectable_difference(0.0, 5)) == (math.inf, 0.0)
    assert (seeds_needed(0.1, 0.0), seeds_needed(0.1, 0.0, alternative="two-sided")) == (5, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimum_detectable_difference(-1, 5), "sd_of_differences must be a finite number of at least 0"),
        (lambda: minimum_detectable_difference(math.nan, 5), "sd_of_differences"),
        (lambda: minimum_detectable_difference(1, 0), "seeds must be a whole number of at least 1"),
        (lambda: minimum_detectable_difference(1, 2.5), "got 2.5"),
        (lambda: minimum_detectable_difference(1, 5, level=0), "level must lie between 0 and 1"),
        (lambda: minimum_detectable_difference(1, 5, power=1), "power must lie between 0 and 1"),
        (lambda: minimum_detectable_difference(1, 5, power=0.05), "takes no difference at all"),
        (lambda: minimum_detectable_difference(1, 5, alternative="up"), "alternative must be one of 'greater', 'less', 'two-sided'"),
        (lambda: seeds_needed(-0.1, 1), "difference must be a finite number of at least 0"),
        (lambda: seeds_needed(0.1, 1, power=0), "power"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
