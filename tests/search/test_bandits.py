"""Which node a bandit takes: pooled counts, Thompson parameters and their schedule, the growth of the archive, and whom to trust in the end. Numbers worked by hand."""

from __future__ import annotations

import math
from random import Random

import pytest

from etude.search import Statistics, Tree
from etude.search.bandits import another_arm, clade_sums, dgm_weights, most_trusted, posterior, posterior_quantile, sharpness, thompson


def test_clades_are_pooled_and_own_counts_stay_as_they_are() -> None:
    # 0 -> 1 -> 3 and 0 -> 2.
    own = [Statistics(10, 2), Statistics(4, 1), Statistics(5, 5), Statistics(6, 3)]
    pooled = clade_sums(own, [None, 0, 0, 1])
    assert pooled == [Statistics(25, 11), Statistics(10, 4), Statistics(5, 5), Statistics(6, 3)]
    assert pooled[1].value == 0.4
    assert own[1] == Statistics(4, 1)
    # The tree keeps the same sums as trials come in.
    tree = Tree({})
    for parent in (0, 0, 1):
        tree.add(parent, {})
    for number, trials in enumerate(own):
        for i in range(trials.visits):
            tree.record(number, float(i < trials.total))
    assert [node.statistics for node in tree.nodes] == pooled
    assert [node.own for node in tree.nodes] == own


def test_draws_are_from_the_sharpened_posterior() -> None:
    assert posterior(Statistics(10, 3)) == (4, 8)
    assert posterior(Statistics(10, 3), 2.5) == (10, 20)
    # What is too large is scaled down as a whole, so that the mean stays 1/3.
    assert posterior(Statistics(10, 3), 1e12) == pytest.approx((5e6, 1e7))
    arms = [(7, Statistics(20, 4)), (9, Statistics(20, 16)), (11, Statistics(20, 10))]
    broad = [thompson(arms, 0.1, Random(seed)) for seed in range(200)]
    sharp = [thompson(arms, 1e9, Random(seed)) for seed in range(200)]
    assert {7, 9, 11} == set(broad)
    assert set(sharp) == {9}


def test_draws_sharpen_as_the_budget_runs_out() -> None:
    assert [sharpness(share) for share in (0, 0.5, 0.75)] == [1, 2, 4]
    assert sharpness(0.75, 0.5) == 2
    assert sharpness(0.75, 0) == sharpness(1, 0) == 1
    assert all(math.isfinite(p) for p in posterior(Statistics(600, 300), sharpness(1)))


def test_the_archive_grows_with_the_power_of_the_trials() -> None:
    # 10 ** 0.6 = 3.98 and 600 ** 0.6 = 46.4.
    assert [another_arm(10, arms) for arms in (3, 4)] == [True, False]
    assert [another_arm(600, arms) for arms in (46, 47)] == [True, False]


def test_dgm_prefers_success_and_small_families() -> None:
    assert dgm_weights([0.5, 0.7, 0.5], [0, 0, 4]) == pytest.approx([0.5, 1 / (1 + math.exp(-2)), 0.1])


def test_few_lucky_trials_are_not_trusted() -> None:
    # Beta(1 + n, 1) has the quantile q ** (1 / (1 + n)).
    assert posterior_quantile(Statistics(3, 3), 0.01) == pytest.approx(0.01**0.25)
    assert posterior_quantile(Statistics(), 0.01) == pytest.approx(0.01)
    assert most_trusted([Statistics(2, 2), Statistics(60, 40), Statistics(60, 40)]) == 1
