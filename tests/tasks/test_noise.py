"""Demonstrations that are made wrong on purpose."""

from __future__ import annotations

from random import Random

from etude.tasks.noise import with_another, with_wrong_tokens


def test_tokens_are_replaced_at_the_rate_that_is_asked_for_and_always_by_others() -> None:
    tokens = [5] * 4000
    wrong = with_wrong_tokens(tokens, [5, 5, 5, 6, 7], 0.25, Random(0))
    changed = [token for token in wrong if token != 5]
    # 0.25 with a standard error of 0.007, of either other one half.
    assert abs(len(changed) / 4000 - 0.25) < 0.03
    assert abs(changed.count(6) / len(changed) - 0.5) < 0.07
    assert tokens == [5] * 4000
    assert with_wrong_tokens(tokens, [5, 6], 0.25, Random(1)) == with_wrong_tokens(tokens, [5, 6], 0.25, Random(1))


def test_shares_of_nothing_and_of_everything() -> None:
    assert with_wrong_tokens([1, 2, 3], [8, 9], 0.0, Random(0)) == [1, 2, 3]
    assert not {1, 2, 3} & set(with_wrong_tokens([1, 2, 3], [8, 9], 1.0, Random(0)))
    assert with_wrong_tokens([1, 1], [1], 1.0, Random(0)) == [1, 1]


def test_whole_demonstrations_are_those_of_other_tasks() -> None:
    assert with_another("a", ["a", "b"], 1.0, Random(0)) == "b"
    assert with_another("a", ["a"], 1.0, Random(0)) == "a"
    given = [with_another("a", ["a", "b", "c"], 0.5, Random(i)) for i in range(400)]
    assert abs(given.count("a") / 400 - 0.5) < 0.1
    assert {"b", "c"} < set(given)
