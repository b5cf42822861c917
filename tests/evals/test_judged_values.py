"""Whether values go with the truth: right steps against wrong ones at equal depth, and which step of a solution is the newest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.evals.judged_values import told_apart
from etude.evals.soundness import newest_right
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.register_chain import RegisterChain
from etude.types import Message, Task

TASK = Task("t", (Message("user", "mod 5: 3 +4*2+1"),), "0", {"start": 3, "chain": [["+", 4], ["*", 2], ["+", 1]]})


def test_steps_are_compared_at_equal_depth_alone() -> None:
    rows = [(1, True, 0.2), (1, False, 0.1), (1, False, 0.2), (2, True, 0.4), (2, True, 0.6), (2, False, 0.5), (3, False, 0.9)]
    # At depth 1 one pair in order and one tie, at depth 2 one of two in order; depth 3 has wrong steps alone.
    assert told_apart(rows) == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert math.isnan(told_apart([(1, True, 0.2), (2, False, 0.1)]))


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=30))
def test_a_value_that_says_how_far_a_solution_has_come_tells_nothing_apart(steps: list[tuple[int, bool]]) -> None:
    area = told_apart([(depth, right, depth / 4) for depth, right in steps])
    assert math.isnan(area) or area == 0.5
    perfect = told_apart([(depth, right, depth / 4 + right) for depth, right in steps])
    assert math.isnan(perfect) == math.isnan(area)
    assert math.isnan(perfect) or perfect == 1.0


@pytest.mark.parametrize(
    ("before", "text", "right"),
    [
        ("", "3+4=2", True),
        ("", "3+4=1", False),
        ("3+4=2", "3+4=2\n2*2=4", True),
        ("3+4=2", "3+4=2\n2*2=3", False),
        # A right step after a wrong one, and a second wrong one: what stood before is wrong already.
        ("3+4=1", "3+4=1\n1*2=2", None),
        ("3+4=1", "3+4=1\n1*2=4", None),
    ],
)
def test_the_newest_step_is_right_or_wrong_after_right_ones_alone(before: str, text: str, right: bool | None) -> None:
    assert newest_right(RegisterChain(), TASK, before, text) is right


def test_nothing_is_said_where_steps_cannot_be_checked() -> None:
    tasks = Arithmetic()
    assert newest_right(tasks, tasks.train_task(0, 0), "", "1+1=2") is None
