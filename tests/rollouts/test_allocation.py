"""Who gets further attempts: the papers' rules against numbers worked out by hand, and on simulated tasks whose accuracy is known."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.advantages import centred
from etude.rollouts.allocation import (
    capped_quotas,
    cumulative_advantage,
    easiness_weighted,
    equal_treatment,
    even_allocation,
    exploration_bonus,
    greedy_allocation,
    half_width,
    hardness_weighted,
    uncertainty_priority,
    uncertainty_reduction,
)


def spread(successes: int, count: int) -> float:
    """Unbiased standard deviation of `count` binary rewards."""
    return stdev([1.0] * successes + [0.0] * (count - successes))


def test_half_width_of_two_successes_in_four() -> None:
    # t(0.975, 3) = 3.182446, s = 1/sqrt(3); with a fifth attempt t(0.975, 4) = 2.776445.
    assert spread(2, 4) == pytest.approx(0.577350, abs=1e-6)
    assert half_width(spread(2, 4), 4) == pytest.approx(0.918693, abs=1e-5)
    assert half_width(spread(2, 4), 5) == pytest.approx(0.716875, abs=1e-5)
    assert half_width(0.5, 1) == math.inf


@pytest.mark.parametrize(
    ("successes", "count", "reduction"),
    [(2, 4, 0.201818), (1, 4, 0.174780), (4, 8, 0.036002), (1, 8, 0.023813), (8, 16, 0.009662), (1, 2, 4.596552), (0, 4, 0.0), (4, 4, 0.0)],
)
def test_what_one_more_attempt_would_narrow(successes: int, count: int, reduction: float) -> None:
    assert uncertainty_reduction(spread(successes, count), count) == pytest.approx(reduction, abs=1e-5)


def test_the_bonus_grows_for_tasks_that_were_left_behind() -> None:
    assert exploration_bonus(4, 64, weight=1.0) == pytest.approx(1.021566, abs=1e-6)
    assert exploration_bonus(8, 64, weight=1.0) == pytest.approx(0.722356, abs=1e-6)
    assert uncertainty_priority(spread(2, 4), 4, 64, exploration=0.1) == pytest.approx(0.201818 + 0.1021566, abs=1e-5)
    assert uncertainty_priority(0.0, 1, 8, exploration=0.0) == 0.0


def test_attempts_go_one_by_one_to_the_highest_priority() -> None:
    # Reductions at 4 attempts: .2018 and .1748; at 5, with the spread as it was, .1110 and .0961; at 6, .0703. So: first, second, first, second, first.
    deviations = [spread(2, 4), spread(1, 4), 0.0]
    assert greedy_allocation([4, 4, 4], deviations, 1, most=99, exploration=0.0) == [1, 0, 0]
    assert greedy_allocation([4, 4, 4], deviations, 2, most=99, exploration=0.0) == [1, 1, 0]
    assert greedy_allocation([4, 4, 4], deviations, 5, most=99, exploration=0.0) == [3, 2, 0]


def test_nobody_goes_above_the_limit_and_what_cannot_be_given_is_left() -> None:
    assert greedy_allocation([4, 4], [0.5, 0.0], 100, most=10, exploration=0.0) == [6, 6]
    assert greedy_allocation([], [], 5, most=10, exploration=1.0) == []
    assert greedy_allocation([12], [0.5], 5, most=10, exploration=1.0) == [0]


def test_an_even_allocation_fills_up_whoever_has_fewest() -> None:
    assert even_allocation([4, 2, 4], 5, most=99) == [1, 3, 1]
    assert even_allocation([4, 4], 3, most=5) == [1, 1]


@given(st.lists(st.tuples(st.integers(2, 9), st.integers(0, 9)), min_size=1, max_size=8), st.integers(0, 40), st.floats(0, 1))
def test_every_attempt_is_given_to_somebody_below_the_limit(tasks: list[tuple[int, int]], budget: int, exploration: float) -> None:
    counts = [n for n, _ in tasks]
    deviations = [spread(min(k, n), n) for n, k in tasks]
    added = greedy_allocation(counts, deviations, budget, most=12, exploration=exploration)
    assert sum(added) == min(budget, sum(12 - n for n in counts))
    assert all(0 <= a <= 12 - n for a, n in zip(added, counts, strict=True))


def simulated(exploration: float, *, steps: int = 60) -> dict[float, float]:
    """Mean attempts at tasks of each accuracy: 32 tasks, 512 attempts, 4 at each task first and the rest in two rounds."""
    rng = np.random.default_rng(0)
    accuracies = [0.0] * 6 + [0.02] * 6 + [0.1] * 6 + [0.5] * 6 + [0.9] * 6 + [1.0] * 2
    totals = dict.fromkeys(accuracies, 0.0)
    for _ in range(steps):
        rewards = [list((rng.random(4) < p).astype(float)) for p in accuracies]
        for budget in (192, 192):
            added = greedy_allocation([len(r) for r in rewards], [stdev(r) for r in rewards], budget, most=64, exploration=exploration)
            for own, p, more in zip(rewards, accuracies, added, strict=True):
                own += list((rng.random(more) < p).astype(float))
        for own, p in zip(rewards, accuracies, strict=True):
            totals[p] += len(own) / steps / accuracies.count(p)
    return totals


def test_without_the_bonus_tasks_without_spread_starve_and_with_much_of_it_all_get_alike() -> None:
    none, some, much = simulated(0.0), simulated(0.02), simulated(1.0)
    assert none[0.0] < 6
    assert none[1.0] < 6
    assert none[0.5] > 30
    assert all(abs(n - 16) < 1.6 for n in much.values())
    # The default lies between: half-solved tasks get 1.3 to 1.8 times the mean, and hopeless ones are not forgotten.
    assert 1.3 * 16 < some[0.5] < 1.8 * 16
    assert some[0.0] > 8


@pytest.mark.parametrize(
    ("quota", "most", "expected"),
    [
        # N = 8, no division by the deviation: N (1 / (4 u (1 - u)) - 1) and N (1 / (2 u) - 1); 0 of 8 counts as half a success.
        (equal_treatment, 32, [24, 11, 3, 1, 0, 0, 0, 0, 0]),
        (hardness_weighted, 32, [24, 24, 8, 3, 0, 0, 0, 0, 0]),
        (hardness_weighted, 64, [56, 24, 8, 3, 0, 0, 0, 0, 0]),
        (easiness_weighted, 32, [0, 0, 0, 0, 0, 3, 8, 24, 24]),
    ],
)
def test_quotas_by_accuracy(quota, most: int, expected: list[int]) -> None:
    assert [quota(k / 8, 8, most) for k in range(9)] == expected


def test_quotas_with_division_by_the_deviation_are_smaller() -> None:
    # S(u) = 2 sqrt(u (1 - u)): at 1 of 8 that is .661438, so 8 / .661438 - 8 = 4.0949; weighted by hardness 1.75 x 8 / .661438 - 8 = 13.166.
    assert equal_treatment(1 / 8, 8, 32, True) == 5
    assert hardness_weighted(1 / 8, 8, 32, True) == 14
    assert cumulative_advantage(1 / 8) == pytest.approx(7 / 32)
    assert cumulative_advantage(0.5, scaled=True) == 1.0


def test_an_unknown_accuracy_asks_for_nothing() -> None:
    assert equal_treatment(math.nan, 8, 32) == hardness_weighted(math.nan, 8, 32) == easiness_weighted(math.nan, 8, 32) == 0


@given(st.integers(2, 20), st.integers(0, 60), st.booleans())
def test_harder_tasks_never_get_less(size: int, room: int, scaled: bool) -> None:
    for quota in (equal_treatment, hardness_weighted):
        quotas = [quota(k / size, size, size + room, scaled) for k in range(size + 1)]
        assert all(a >= b for a, b in pairwise(quotas))
        assert max(quotas) <= room


def test_tasks_that_nobody_solves_can_be_held_to_a_share() -> None:
    quotas, unsolved = [24, 24, 8, 24], [True, True, False, True]
    assert capped_quotas(quotas, unsolved, drawn=32, share=1.0) == quotas
    # Of 32 + 8 attempts and theirs they may have a fifth: 10, spread evenly, the remainder to the first.
    assert capped_quotas(quotas, unsolved, drawn=32, share=0.2) == [4, 3, 8, 3]
    assert capped_quotas(quotas, unsolved, drawn=32, share=0.0) == [0, 0, 8, 0]
    # What one does not want, others may have.
    assert capped_quotas([1, 24, 0], [True, True, False], drawn=24, share=0.25) == [1, 7, 0]


@pytest.mark.parametrize("accuracy", [0.1, 0.25, 0.45])
def test_quotas_bring_a_hard_tasks_weight_to_that_of_a_half_solved_one(accuracy: float) -> None:
    import torch

    rng = np.random.default_rng(1)

    def weight(count: int, repeats: int = 4000) -> float:
        rewards = torch.tensor((rng.random((repeats, count)) < accuracy).astype(float))
        return float(sum(centred(r).abs().sum() for r in rewards)) / repeats

    # The group's own mean is the baseline, so that N attempts weigh 2 (N - 1) u (1 - u).
    assert weight(8) == pytest.approx(2 * 7 * accuracy * (1 - accuracy), rel=0.05)
    assert weight(8 + equal_treatment(accuracy, 8, 10**6)) == pytest.approx(4, rel=0.15)
