"""Choosing a few of many attempts: even over the tasks, and over the outcomes where asked."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from etude.rollouts.stratified import balanced, even_shares, stratified

GROUPS = [[(g, i) for i in range(8)] for g in range(4)]


@pytest.mark.parametrize(
    ("wanted", "per_group"),
    [(2, [0, 0, 1, 1]), (4, [1, 1, 1, 1]), (6, [1, 1, 2, 2]), (9, [2, 2, 2, 3]), (32, [8, 8, 8, 8]), (99, [8, 8, 8, 8]), (0, [])],
)
def test_every_group_gives_its_share_and_some_one_more(wanted: int, per_group: list[int]) -> None:
    chosen = stratified(GROUPS, wanted, Random(1))
    assert len(chosen) == len(set(chosen)) == min(wanted, 32)
    counts = Counter(g for g, _ in chosen)
    assert sorted(counts[g] for g in range(4)) == (per_group or [0] * 4)


def test_which_group_gives_one_more_and_which_of_its_attempts_is_chance() -> None:
    single = [stratified(GROUPS, 1, Random(seed))[0] for seed in range(400)]
    assert set(Counter(g for g, _ in single)) == {0, 1, 2, 3}
    assert min(Counter(g for g, _ in single).values()) > 60
    assert len({i for _, i in single}) == 8
    assert stratified(GROUPS, 5, Random(3)) == stratified(GROUPS, 5, Random(3))


def test_a_group_that_runs_out_leaves_its_share_to_the_others() -> None:
    chosen = stratified([["a"], [], ["b", "c", "d", "e"]], 4, Random(0))
    assert sorted(chosen)[0] == "a"
    assert len(chosen) == 4


def test_classes_come_as_near_to_equal_as_their_sizes_allow() -> None:
    assert even_shares({"right": 20, "wrong": 20}, 8) == {"right": 4, "wrong": 4}
    assert even_shares({"right": 20, "wrong": 1}, 8) == {"wrong": 1, "right": 7}
    assert even_shares({"right": 20, "wrong": 30}, 5) == {"right": 2, "wrong": 3}
    assert even_shares({"right": 2, "wrong": 1}, 8) == {"wrong": 1, "right": 2}


def test_balance_takes_as_many_of_a_rare_class() -> None:
    classes = [[i == 0 for i in range(8)] for _ in range(4)]  # one of eight is right
    chosen = balanced(GROUPS, classes, 8, Random(0))
    assert sum(i == 0 for _, i in chosen) == 4
    # The right ones come from all four groups, and so do the others.
    assert {g for g, i in chosen if i == 0} == {g for g, i in chosen if i} == {0, 1, 2, 3}
    plain = [sum(i == 0 for _, i in stratified(GROUPS, 8, Random(seed))) for seed in range(50)]
    assert sum(plain) / 50 < 2
