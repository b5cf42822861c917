"""What a choice of strategy is worth, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from etude.evals.strategies import Tried, retry_metrics, strategy_metrics
from etude.types import Message, Segment, Task, Trajectory

# Three tasks of two kinds, three strategies, two samples of each.
RIGHT = np.array([[[1, 1], [0, 0], [0, 1]], [[1, 0], [0, 0], [0, 0]], [[0, 0], [1, 1], [0, 0]]], dtype=float)
TRIED = Tried(["a", "b", "c"], RIGHT, np.full((3, 3, 2), 4.0), [["7", "8", "8"], ["1", None, "2"], ["5", "6", "5"]], ["x", "x", "y"])
CHOICE = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.2, 0.6, 0.2]])


def test_the_worth_of_a_choice() -> None:
    found = strategy_metrics(TRIED, CHOICE, at_start=np.array([[0, 0, 1], [0, 0.5, 0], [1, 0, 0]], dtype=float))
    # Chances: task 1 (1, 0, 1/2), task 2 (1/2, 0, 0), task 3 (0, 1, 0).
    assert found["first"] == pytest.approx((0.5 + 0.125 + 0 + 0.6) / 3)
    assert found["choice_at_start"] == pytest.approx((0.25 + 0.5 + 0.2) / 3)
    assert [found[f"fixed_{n}"] for n in "abc"] == pytest.approx([0.5, 1 / 3, 1 / 6])
    assert found["best_fixed"] == 0.5
    # Of kind x strategy a is the best, of kind y strategy b.
    assert found["best_by_kind"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["oracle_strategy"] == 1.0
    assert found["tag_accuracy"] == pytest.approx(2 / 3)
    assert found["tag_right"] == pytest.approx(2 / 3)
    entropy = 1.5 * math.log(2) - (0.4 * math.log(0.2) + 0.6 * math.log(0.6))
    assert found["tag_entropy"] == pytest.approx(entropy / 3)
    assert (found["tag_a"], found["tag_x_b"], found["tag_y_b"]) == pytest.approx((0.7 / 3, 0.625, 0.6))
    # First samples vote: 8 wins (wrong: b's verdict 0, c's 0), 1 wins the tie (right), 5 wins (wrong).
    assert found["vote"] == pytest.approx(1 / 3)
    assert found["vote_tokens"] == 12.0


def test_one_kind_has_no_best_of_its_own() -> None:
    found = strategy_metrics(Tried(["a"], np.ones((2, 1, 1)), np.ones((2, 1, 1)), [["1"], ["2"]], ["", ""]), np.ones((2, 1)))
    assert (found["first"], found["tag_entropy"]) == (1.0, 0.0)
    assert not {"tag_accuracy", "tag_right", "choice_at_start"} & found.keys()


def test_tries_in_turn_are_counted_with_all_their_tokens() -> None:
    def attempt(tokens: int, correct: float) -> Trajectory:
        return Trajectory(Task("t", (Message("user", "?"),)), [1], [Segment([5] * tokens, "policy", "x")], "eos", rewards={"correct": correct})

    found = retry_metrics([[attempt(3, 0), attempt(4, 1)], [attempt(5, 1)], [attempt(1, 0), attempt(2, 0)]], lambda text: text)
    assert found == pytest.approx({"retry_first": 1 / 3, "retry_oracle_stop": 2 / 3, "retry_tokens": 5.0})
