"""Quality values: the formula on worked solutions, and what a tree with judged ends says of its nodes."""

from __future__ import annotations

from random import Random

import pytest

from etude.errors import InputError
from etude.rewards.quality import quality_values, shuffled, trace_targets, tree_targets

# 0 is the root, below it 1 and 2; below 1 the leaves 3 (right), 4 (wrong) and 6 (not judged); below 2 the leaf 5 (wrong).
PARENTS = [None, 0, 0, 1, 1, 2, 1]
RIGHT = {3: True, 4: False, 5: False}


def test_right_steps_add_up_to_one_and_wrong_ones_cost_as_much() -> None:
    assert quality_values([3, 2, 1, 0], [False] * 4) == pytest.approx([0.25, 0.5, 0.75, 1.0])
    # 0.5 - 0.5 / 2, then 0.25 - 0.75 / 2, which is below 0.
    assert quality_values([3, 2, 1, 1], [False, False, True, True]) == pytest.approx([0.25, 0.5, 0.25, 0.0])


def test_judged_ends_give_every_step_a_value() -> None:
    # 1 is two steps from an end as 3 is one: 1/2, then 1/2 + 1/2. 4 borrows the distance of 1: 1/2 - (1/2) / 2. 2 and 5 that of the root: 0 - 1/3, cut to 0.
    assert tree_targets(PARENTS, RIGHT) == pytest.approx({0: 0.0, 1: 0.5, 2: 0.0, 3: 1.0, 4: 0.25, 5: 0.0})
    assert tree_targets(PARENTS, {4: False, 5: False}) == {}
    # Of two ways to an end the shorter one counts.
    assert tree_targets([None, 0, 1, 2, 0], {3: True, 4: True}) == pytest.approx({0: 0.0, 1: 1 / 3, 2: 2 / 3, 3: 1.0, 4: 1.0})
    with pytest.raises(InputError, match="tree of 7 nodes"):
        tree_targets(PARENTS, {9: True})


def test_one_solution_values_what_is_on_it_and_beside_it() -> None:
    assert trace_targets([None, 0, 1, 2, 2, 0, 3], 3) == pytest.approx({0: 0.0, 1: 1 / 3, 2: 2 / 3, 3: 1.0, 4: 1 / 3, 5: 0.0, 6: 2 / 3})


def test_shuffled_values_stay_but_say_nothing() -> None:
    targets = {0: 0.0} | {n: n / 10 for n in range(1, 10)}
    dealt = shuffled(targets, Random(0))
    assert dealt[0] == 0.0
    assert sorted(dealt.values()) == sorted(targets.values())
    assert dealt != targets
