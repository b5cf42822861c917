"""Exploration and exploitation of a batch, by hand and against SciPy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from etude.evals.monitors import best_all_right, exploitation, exploration, monitors
from etude.evals.passk import pass_at_k
from etude.types import Group, Message, Segment, Task, Trajectory


def attempt(correct: float | None, reward: float = math.nan, text: str = "x") -> Trajectory:
    rewards = {} if correct is None else {"correct": correct}
    return Trajectory(Task("t", (Message("user", "x"),)), [1], [Segment([5], "policy", text)], "eos", reward=reward, rewards=rewards)


def group(*attempts: Trajectory) -> Group:
    return Group("g", list(attempts))


def test_exploration_by_hand() -> None:
    solved = group(attempt(1, text="a b"), attempt(1, text="A  b\n"), attempt(1, text="c"), attempt(0, text="a b"))
    unsolved = group(attempt(0, text="d"), attempt(0, text="e"))
    ways = group(*(attempt(1, text=f"way {i}") for i in range(4)))
    assert exploration([solved, unsolved, ways]) == pytest.approx(
        {
            "explore/solved": 2 / 3,
            # Best attempts 1, 0, 1; means 3/4, 0, 1.
            "explore/pass_gap": 2 / 3 - 1.75 / 3,
            "explore/right_ways": (2 + 0 + 4) / 3,
            "explore/several_ways": 1 / 3,
            "explore/distinct": (2 / 4 + 2 / 2 + 4 / 4) / 3,
        }
    )


def test_exploitation_by_hand() -> None:
    # Right ones have 3 and 1, wrong ones 1 and 0: of four pairs three are in order and one is a tie.
    mixed = group(attempt(1, 3.0), attempt(1, 1.0), attempt(0, 1.0), attempt(0, 0.0))
    # The wrong one has the higher reward: its pair is out of order. The two best tie, and one of them is right.
    misled = group(attempt(1, 0.5), attempt(0, 2.0), attempt(1, 2.0))
    assert exploitation([mixed, misled]) == pytest.approx(
        {
            "exploit/auc": (3.5 + 0.5) / (4 + 2),
            "exploit/best_by_reward": (1.0 + 0.5) / 2,
            "exploit/gain": (1.0 + 0.5) / 2 - (1 / 2 + 2 / 3) / 2,
            # Of the four best of the first not all are right; the second has three.
            "exploit/best_ways": 0.0,
        }
    )


def test_the_best_by_reward_are_all_right_by_hand() -> None:
    # One above the tie, and of the three that tie two are right: one more is right in 2 of 3 draws, two more in 1 of 3.
    attempts = [(1.0, True), (0.5, True), (0.5, False), (0.5, True), (0.0, False)]
    assert [best_all_right(attempts, count) for count in (1, 2, 3, 4)] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert best_all_right([(2.0, False), (1.0, True)], 2) == 0


def test_partial_credit_is_not_right_but_counts_in_means() -> None:
    found = monitors([group(attempt(0.5, 1.0), attempt(0.0, 0.0))])
    assert (found["explore/solved"], found["explore/right_ways"], found["explore/pass_gap"]) == (0.0, 0.0, 0.25)
    assert found["exploit/best_by_reward"] == 0.5
    assert "exploit/auc" not in found


def test_without_verdicts_there_is_nothing_to_say() -> None:
    assert monitors([]) == {}
    assert monitors([group(attempt(None, 1.0), attempt(math.nan, 0.0)), group()]) == {}
    unrewarded = monitors([group(attempt(1.0), attempt(0.0))])
    assert unrewarded["explore/solved"] == 1.0
    assert not any(name.startswith("exploit/") for name in unrewarded)


pairs = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=12)


@settings(deadline=None)
@given(pairs)
def test_the_area_is_mann_and_whitneys_u_over_the_pairs(row: list[tuple[bool, int]]) -> None:
    right, wrong = [float(r) for c, r in row if c], [float(r) for c, r in row if not c]
    found = exploitation([group(*(attempt(float(c), float(r)) for c, r in row))])
    if not right or not wrong:
        assert "exploit/auc" not in found
        return
    assert found["exploit/auc"] == pytest.approx(mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong)))


@settings(deadline=None)
@given(st.lists(pairs, min_size=1, max_size=5))
def test_what_the_reward_gains_is_bounded_by_what_exploration_leaves(rows: list[list[tuple[bool, int]]]) -> None:
    groups = [group(*(attempt(float(c), float(r)) for c, r in row)) for row in rows]
    found = monitors(groups)
    assert found["exploit/gain"] <= found["explore/pass_gap"] + 1e-12
    assert found["explore/solved"] == pytest.approx(sum(pass_at_k(len(r), sum(c for c, _ in r), len(r)) for r in rows) / len(rows))
    perfect = [group(*(attempt(float(c), float(c)) for c, _ in row)) for row in rows]
    assert exploitation(perfect)["exploit/gain"] == pytest.approx(found["explore/pass_gap"])
