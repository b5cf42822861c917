"""Rounds by hand: eight items, three rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.evals.revision import Rounds, dynamics, edit_ratio, revision_metrics

NAN = float("nan")
ROUNDS = Rounds(
    np.array([[0, 1, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=float),
    [["3", "5", "5"], ["3", "4", "3"], ["5", "5", "6"], ["5", "5", "5"]],
    [["ab", "abc", "abc"], ["x", "y", "x"], ["", "", ""], ["aa", "aa", "bb"]],
)


def test_both_directions_are_counted() -> None:
    found = revision_metrics(ROUNDS)
    assert [found[f"correct@{k}"] for k in (1, 2, 3)] == [0.5, 0.75, 0.5]
    assert (found["delta"], found["fixed"], found["broken"], found["fix_rate"], found["break_rate"]) == (0, 0.25, 0.25, 0.5, 0.5)
    assert (found["changed"], found["oracle_stop"]) == (0.5, 0.75)
    assert found["edit_ratio"] == pytest.approx((1 / 5 + 0 + 0 + 2 / 4) / 4)


def test_how_answers_behave_over_rounds() -> None:
    found = dynamics(ROUNDS)
    assert (found["best_round"], found["late_loss"]) == (1, 0.25)
    # Of the two that were wrong at first one ends as it began (after leaving it), and one was right at some time; of the two right ones one drifted off.
    assert (found["inertia"], found["escape"], found["drift"]) == (0.5, 0.5, 0.5)
    assert found["change_rate"] == pytest.approx(4 / 8)
    assert found["oscillation"] == 0.25
    # Three steps leave from a wrong answer: one is mended, two go on to another wrong one.
    assert found["wrong_to_other"] == pytest.approx(2 / 3)
    assert found["unread"] == 0


def test_rounds_that_an_item_has_not_are_left_out() -> None:
    cut = Rounds(np.array([[0, NAN], [0, 1], [1, 1]]), [["1"], ["1", "2"], ["2", "2"]])
    found = revision_metrics(cut)
    assert (found["correct@1"], found["correct@2"]) == (pytest.approx(1 / 3), 1)
    assert (found["fixed"], found["changed"]) == (pytest.approx(1 / 3), 0.5)
    assert "edit_ratio" not in found


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4), min_size=1, max_size=12))
def test_accuracy_moves_by_the_flips_alone_and_the_oracle_never_falls(rows: list[list[float]]) -> None:
    rounds = Rounds(np.array(rows), [["1"] * 4] * len(rows))
    for k in range(1, 4):
        fixed, broken = rounds.flips(k - 1, k)
        assert rounds.accuracy[k] - rounds.accuracy[k - 1] == pytest.approx((fixed.sum() - broken.sum()) / len(rows))
    assert all(np.diff(rounds.oracle) >= 0)
    assert rounds.oracle[-1] >= rounds.accuracy.max() - 1e-12


def test_unrelated_texts_of_equal_length_are_half_apart() -> None:
    assert (edit_ratio("abcd", "abcd"), edit_ratio("abcd", "wxyz"), edit_ratio("", "")) == (0, 0.5, 0)
