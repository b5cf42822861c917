"""A population of attempts: who stays, and who becomes a parent. Hand-worked."""

from __future__ import annotations

from random import Random

import pytest

from etude.search.attempt_operators import GUIDE, first_words, mutation
from etude.search.attempt_pool import Attempt, Birth, begun
from etude.search.breeding import PoolConfig, affordable, ended, next_births, plan_of
from etude.search.population import alike_parts, children_of, elite_and_diverse, open_sets, pairs, pick_one, pick_pair, with_guides

VALUES = {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.1, 5: 0.2}
NEAR = {frozenset((1, 2)): 0.95, frozenset((1, 3)): 0.5, frozenset((1, 4)): 0.1, frozenset((1, 5)): 0.3, frozenset((3, 4)): 0.4, frozenset((3, 5)): 0.2}


def alike(first: int, second: int) -> float:
    return NEAR.get(frozenset((first, second)), 0.0)


def test_the_best_stay_and_then_what_is_least_like_them() -> None:
    # 2 is too like 1. Of 4 and 5, after 1 and 3: 4 is 0.4 like its nearest, 5 is 0.3.
    assert elite_and_diverse(VALUES, alike, size=3, elite=2) == [1, 3, 5]
    # With one elite place 4 (0.1 like 1) comes before 5 (0.3) and 3 (0.5); then 5, which is nothing like 4.
    assert elite_and_diverse(VALUES, alike, size=3, elite=1) == [1, 5, 4]
    # A near copy leaves also where there is room, unless nothing is too alike.
    assert elite_and_diverse(VALUES, alike, size=9, elite=9) == [1, 3, 5, 4]
    assert elite_and_diverse(VALUES, alike, size=9, elite=9, most_alike=1.0) == [1, 2, 3, 5, 4]


def test_picks_and_the_cap_of_children_a_parent_set_may_have() -> None:
    random = Random(0)
    assert pick_one([(1,), (4,), (5,)], VALUES, "low", random) == (4,)
    assert pick_one([(1,), (4,), (5,)], VALUES, "high", random) == (1,)
    # Sums: (1, 2) 1.7, (1, 3) 1.6; with what tells them apart 1.7 + 0.05 and 1.6 + 0.5.
    assert pick_pair(pairs([1, 2, 3]), VALUES, alike, "best", random) == (1, 2)
    assert pick_pair(pairs([1, 2, 3]), VALUES, alike, "apart", random) == (2, 3)
    assert pick_pair(pairs([1, 2, 3]), VALUES, alike, "newest", random) == (2, 3)
    assert with_guides([1, 3, 4], VALUES, 2) == [(3, 1), (4, 1, 3)]
    children = children_of([(1, 2), (2, 1), (3,)])
    assert open_sets([(1, 2), (3,), (4,)], children, 2) == [(3,), (4,)]
    assert open_sets([(1, 2)], children, 0) == [(1, 2)]
    assert pick_one([], VALUES, "low", random) is None
    # Of a, b, c and a, c two are common: 2 * 2 / 5.
    assert alike_parts({1: ["a", "b", "c"], 2: ["a", "c"]})(1, 2) == pytest.approx(0.8)


def attempt(value: float, turns: int = 3, plan: str = "p") -> Attempt:
    said = [("policy", f"{value} {turn}") for turn in range(turns)]
    return Attempt("plan", plan, "", said, "x", False, "handed in", {}, {"ended": True}, {}, value, turns + 1)


def test_a_pool_begins_with_plans_and_then_each_operator_has_its_turn() -> None:
    pool, config = begun("a task"), PoolConfig(plans=2, styles=2, mutations=1, candidates=7, operators=("crossover", "revise"), calls_per_task=30)
    # Nothing is known of what an attempt costs, so that one goes first.
    (first,) = next_births(pool, config, Random(0))
    pool.add(first, attempt(0.5), 1.0)
    # 4 calls are spent; 26 are left for attempts of 3 turns and a summary.
    assert affordable(pool, config) == 6
    (second,) = next_births(pool, config, Random(0))
    assert (first, second) == (Birth(1, "plan"), Birth(2, "plan"))
    assert plan_of(pool, first, config) != plan_of(pool, second, config)
    pool.add(second, attempt(0.2), 0.0)
    (third,) = next_births(pool, config, Random(0))
    assert (third.operator, len(third.parents)) == ("mutate", 1)
    pool.add(third, attempt(0.1), 0.0)
    (fourth,) = next_births(pool, config, Random(0))
    assert fourth.operator == "crossover"
    pool.add(fourth, Attempt(**{**attempt(0.6).to_plain(), "operator": "crossover"}), 0.0)
    assert pool.tree.nodes[4].parents == fourth.parents
    (fifth,) = next_births(pool, config, Random(0))
    assert (fifth.operator, fifth.parents) == ("revise", (3,))
    # Guidance costs a call: 14 left, 5 an attempt.
    assert affordable(pool, config) == 2
    assert ended(pool, config) is None
    assert ended(pool, PoolConfig(candidates=4)) == "4 attempts"
    assert ended(pool, PoolConfig(calls_per_task=18)) == "16 calls"
    assert ended(pool, PoolConfig(plans=2, patience=1)) is None
    assert next_births(pool, PoolConfig(plans=2, operators=()), Random(0)) == [Birth(5, "plan")]
    assert pool.best() == 4
    # Whoever was let go may still be settled on, and what the verifier said is in no attempt.
    pool.select(size=1, elite=1, most_alike=0.9)
    assert pool.members == [4]
    assert "verdict" not in pool.tree.nodes[1].state


def test_patches_are_compared_by_the_lines_that_they_change() -> None:
    patch = "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n def f(a):\n-    return a\n+    return a + 1\n"
    first, second = (Attempt(**{**attempt(0.5).to_plain(), "artefact": p, "patched": True}) for p in (patch, patch.replace("a + 1", "a + 2")))
    assert first.parts == ["-    return a", "+    return a + 1"]
    assert alike_parts({1: first.parts, 2: second.parts})(1, 2) == pytest.approx(0.5)


def test_guidance() -> None:
    text = mutation("the plan", ["look", "edit", "submit"], Random(0))
    assert "> look" in text or "> edit" in text
    assert text.endswith("the plan")
    assert first_words("one two\nthree four", 3) == "one two\nthree"
    assert GUIDE.endswith("\n")
