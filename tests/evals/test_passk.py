from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import InputError
from etude.evals.passk import best_at_k, maj_at_k, pass_at_k, sizes, summarise, task_interval, vote_labels, wilson_interval


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),
        (4, 2, 2, 5 / 6),  # 1 - C(2,2)/C(4,2)
        (10, 3, 4, 1 - 35 / 210),  # C(7,4)=35, C(10,4)=210
        (5, 5, 3, 1.0),
        (5, 0, 5, 0.0),
        (5, 1, 5, 1.0),
    ],
)
def test_pass_at_k_by_hand(n, c, k, value):
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-15)


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_pass_at_k_is_the_binomial_formula(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)


def test_pass_at_k_of_very_many_samples_is_finite():
    assert pass_at_k(100_000, 10, 10_000) == pytest.approx(1 - 0.9**10, abs=1e-3)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5)])
def test_pass_at_k_refuses_what_is_not_defined(n, c, k):
    with pytest.raises(InputError, match="is not defined"):
        pass_at_k(n, c, k)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=20), st.data())
def test_best_at_k_of_verdicts_is_pass_at_k(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    assert best_at_k(scores, k) == pytest.approx(pass_at_k(len(scores), int(sum(scores)), k), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_best_at_k_is_the_mean_best_over_all_subsets(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    subsets = list(itertools.combinations(scores, k))
    assert best_at_k(scores, k) == pytest.approx(sum(map(max, subsets)) / len(subsets), abs=1e-12)


def test_best_at_k_of_very_many_samples_is_finite():
    assert best_at_k([0.0] * 5000 + [1.0] * 5000, 5000) == pytest.approx(1.0)


def test_votes_are_counted_by_meaning():
    assert vote_labels(["5", None, "5.0", "6", "answer"]) == [0, -1, 0, 1, 2]


def test_maj_at_n_by_hand():
    assert maj_at_k([0, 1, 1, -1], [0, 1, 1, 0], 4) == 1.0
    assert maj_at_k([0, 0, 1, -1], [0, 0, 1, 0], 4) == 0.0
    assert maj_at_k([-1, -1], [0, 0], 2) == 0.0
    assert maj_at_k([-1, -1, 3], [0, 0, 1], 3) == 1.0  # abstentions do not win
    assert maj_at_k([1, 0, 0, 1], [1, 0, 0, 1], 4) == 1.0  # a tie goes to the first
    assert maj_at_k([0, 1, 1, 0], [0, 1, 1, 0], 4) == 0.0


def test_maj_at_k_is_estimated_over_subsets():
    labels, scores = [0] * 6 + [1] * 4, [1.0] * 6 + [0.0] * 4
    assert maj_at_k(labels, scores, 1) == pytest.approx(0.6, abs=0.1)
    # Three of ten: 3 right C(6,3)=20, 2 right C(6,2)*4=60, of C(10,3)=120.
    assert maj_at_k(labels, scores, 3) == pytest.approx(80 / 120, abs=0.1)
    assert maj_at_k(labels, scores, 3, seed=1) == maj_at_k(labels, scores, 3, seed=1)
    with pytest.raises(InputError, match="maj@11"):
        maj_at_k(labels, scores, 11)


def test_wilson_by_hand():
    # 8 of 10, z = 1.96: centre (0.8 + 0.19208) / 1.38416, half-width sqrt(0.061466 + 0.036895) / 1.38416.
    low, high = wilson_interval(0.8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert wilson_interval(0.0, 10)[0] == 0.0
    assert wilson_interval(0.0, 10)[1] == pytest.approx(0.2775, abs=1e-3)
    assert wilson_interval(0.5, 0) == (0.0, 1.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(1, 64))
def test_an_interval_holds_its_mean_within_0_and_1(values, samples):
    low, high = task_interval(values, samples)
    mean = sum(values) / len(values)
    assert 0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1
    assert low < high


def test_more_samples_of_the_same_tasks_do_not_replace_tasks():
    """Tasks that are all solved or all failed: however many samples, there are eight pieces of evidence."""
    low, high = task_interval([0.0, 1.0] * 4, samples=1000)
    assert (low, high) == task_interval([0.0, 1.0] * 4, samples=1)
    assert high - low > 0.5


def test_samples_that_behave_as_if_independent_narrow_it():
    widths = [high - low for low, high in (task_interval([0.5] * 8, samples=s) for s in (1, 4))]
    assert widths[1] < 0.8 * widths[0]


def test_nearly_nothing_is_like_nothing():
    assert task_interval([1e-300] * 3 + [0.0], samples=4) == pytest.approx(task_interval([0.0] * 4, samples=4))


def test_one_task_says_nothing():
    assert task_interval([0.7], samples=64) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("tasks", "samples", "a", "b"), [(40, 8, 0.5, 0.5), (200, 8, 2.0, 6.0), (20, 4, 0.3, 2.7), (40, 8, 0.1, 4.0), (15, 16, 5.0, 2.0), (200, 8, 0.2, 8.0)]
)
def test_95_percent_intervals_cover_about_95_percent(tasks, samples, a, b):
    """Task difficulties from Beta(a, b): the mean over all tasks that could have been drawn is a / (a + b). These draws had no part in choosing the rule."""
    generator = np.random.default_rng([2027, tasks, samples])
    trials = 3000
    rates = generator.beta(a, b, size=(trials, tasks))
    means = generator.binomial(samples, rates) / samples
    truth = a / (a + b)
    covered = np.mean([low <= truth <= high for low, high in (task_interval(row.tolist(), samples) for row in means)])
    assert 0.93 <= covered <= 0.985


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8]), (32, [1, 2, 4, 8, 16, 32])])
def test_reported_sizes(n, expected):
    assert sizes(n) == expected


def test_summary_by_hand():
    metrics = summarise(
        task_ids=["a", "b"],
        correct=[[1, 0, 0, 1], [0, 0, 0, 0]],
        answers=[["5", "6", "7", "5"], ["1", "1", None, "2"]],
        lengths=[[10, 20, 30, 40], [5, 5, 5, 5]],
        formats=[[1, 1, 1, 1], [1, 1, 0, 1]],
    )
    assert metrics["eval/pass@1"] == 0.25
    assert metrics["eval/pass@2"] == pytest.approx((5 / 6) / 2)
    assert metrics["eval/pass@4"] == 0.5
    assert metrics["eval/maj@4"] == 0.5
    assert metrics["eval/length"] == 15.0
    assert (metrics["eval/length_right"], metrics["eval/length_wrong"]) == (25.0, 70 / 6)
    assert metrics["eval/format"] == 0.875
    assert (metrics["eval/tasks"], metrics["eval/unscored"]) == (2.0, 0.0)
    for name in ("pass@1", "pass@2", "pass@4", "maj@4"):
        assert metrics[f"eval/{name}_low"] <= metrics[f"eval/{name}"] <= metrics[f"eval/{name}_high"]


def test_samples_without_a_verdict_are_left_out():
    nan = math.nan
    metrics = summarise(["a", "b", "c"], [[1, nan, 1], [0, 1, nan], [nan, nan, nan]], answers=[["5", "6", "5"], ["1", "2", "2"], ["1"] * 3])
    assert metrics["eval/pass@1"] == 0.75
    assert metrics["eval/pass@2"] == 1.0
    assert metrics["eval/unscored"] == pytest.approx(5 / 9)
    assert metrics["eval/maj@2"] == 0.5  # of b the two judged votes tie, and the first, a wrong one, wins
    assert "eval/pass@3" not in metrics


def test_lengths_of_right_and_wrong_attempts_are_those_of_plain_verdicts():
    metrics = summarise(["a"], [[1, math.nan, 0.5, 1]], lengths=[[4, 100, 100, 6]])
    assert metrics["eval/length_right"] == 5.0
    assert "eval/length_wrong" not in metrics


def test_rows_of_one_task_are_pooled():
    pooled = summarise(["a", "a", "b"], [[1, 1], [0, 0], [0, 0]], answers=[["5", "5"], ["6", "6"], [None, None]])
    assert (pooled["eval/tasks"], pooled["eval/pass@1"], pooled["eval/pass@2"]) == (2.0, 0.25, pytest.approx((1 - 1 / 6) / 2))


def test_no_answers_no_vote_and_nothing_judged_no_pass():
    metrics = summarise(["a"], [[1, 0]], answers=[[None, None]])
    assert not any("maj" in name for name in metrics)
    assert summarise(["a"], [[math.nan]]) == {"eval/tasks": 1.0, "eval/unscored": 1.0}


def test_tables_of_different_shape_are_refused():
    with pytest.raises(InputError, match="lengths has another shape"):
        summarise(["a"], [[1, 0]], lengths=[[1]])
    with pytest.raises(InputError, match="2 task ids and 1 rows"):
        summarise(["a", "b"], [[1, 0]])
    with pytest.raises(InputError, match="expected at least one"):
        summarise([], [])
