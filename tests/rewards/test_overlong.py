from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.rewards import add_overlong, overlong
from etude.types import Message, Segment, Task, Trajectory


@pytest.mark.parametrize(("length", "penalty"), [(0, 0.0), (60, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (101, -1.0), (10_000, -1.0)])
def test_worked_values(length, penalty):
    """Limit 100, the last 20 tokens penalised."""
    assert overlong(length, max_length=100, cache=20) == pytest.approx(penalty, abs=1e-12)


@given(st.integers(1, 500), st.data())
def test_it_falls_from_0_to_minus_1(max_length, data):
    cache = data.draw(st.integers(1, max_length))
    penalties = [overlong(length, max_length=max_length, cache=cache) for length in range(max_length + 2)]
    assert penalties == sorted(penalties, reverse=True)
    assert (penalties[max_length - cache], penalties[max_length]) == (0.0, -1.0)


@pytest.mark.parametrize("cache", [0, -1, 101])
def test_a_range_that_makes_no_sense_is_refused(cache):
    with pytest.raises(InputError, match="expected from 1 to 100"):
        overlong(5, max_length=100, cache=cache)


def test_it_is_a_component_of_the_reward():
    task = Task("t", (Message("user", "x"),))
    segments = [Segment([0] * 50, "policy"), Segment([0] * 500, "environment"), Segment([0] * 40, "policy")]
    trajectory = Trajectory(task, [], segments, "eos", rewards={"correct": 1.0}, reward=1.0)
    add_overlong([trajectory], max_length=100, cache=20, weight=0.5)
    assert trajectory.rewards == {"correct": 1.0, "overlong": -0.5}
    assert (trajectory.reward, trajectory.correct) == (0.75, 1.0)
