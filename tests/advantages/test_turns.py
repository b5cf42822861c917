"""Credit by turn, worked by hand."""

from __future__ import annotations

import pytest

from etude.advantages import assign_turns, by_turn, leave_one_out, turn_returns
from etude.errors import InputError
from etude.tasks.revisions import after_attempts
from etude.types import Group, Message, Segment, Task, Trajectory

TASK = Task("t", (Message("user", "?"),))


def two_turns(first: float, second: float) -> Trajectory:
    turns = [Segment([1, 2], "policy", trained=True, reward=first), Segment([9], "environment"), Segment([3], "policy", trained=True, reward=second)]
    return Trajectory(TASK, [0], turns, "environment")


def rewards(trajectory: Trajectory) -> list[float]:
    return [s.reward for s in trajectory.segments if s.trained]


def test_later_rewards_count_by_gamma() -> None:
    assert turn_returns([1, 2, 4], gamma=0) == [1, 2, 4]
    assert turn_returns([1, 2, 4], gamma=1) == [7, 6, 4]
    assert turn_returns([1, 2, 4], gamma=0.5) == [3, 4, 4]
    with pytest.raises(InputError, match="expected a number from 0 to 1"):
        turn_returns([1], gamma=2)


def test_each_turn_is_compared_with_the_same_turn_of_the_others() -> None:
    group = Group("t", [two_turns(1, 0), two_turns(0, 11)])
    assign_turns([group], rewards, leave_one_out)
    assert [[s.advantages for s in t.segments] for t in group.trajectories] == [[[1, 1], [], [-11]], [[-1, -1], [], [11]]]
    # What the second turn earned says nothing about the first.
    assign_turns([changed := Group("t", [two_turns(1, 5), two_turns(0, 5)])], rewards, leave_one_out)
    assert changed.trajectories[0].segments[0].advantages == [1, 1]


def test_a_turn_after_a_given_attempt_is_a_second_one() -> None:
    begun = Trajectory(after_attempts(TASK, ["x"], "again", "base"), [0], [Segment([3], "policy", trained=True, reward=4.0)], "environment")
    group = Group("t", [begun, two_turns(7, 0)])
    assign_turns([group], rewards, leave_one_out)
    assert begun.segments[0].advantages == [4]
    assert [s.advantages for s in group.trajectories[1].segments] == [[0, 0], [], [-4]]


def test_numbers_are_parted_by_turn() -> None:
    assert by_turn(two_turns(0, 0), [0.1, 0.2, 0.3]) == [[0.1, 0.2], [0.3]]
    with pytest.raises(InputError, match="there are 2 numbers for the 3 trained tokens"):
        by_turn(two_turns(0, 0), [0.1, 0.2])
    with pytest.raises(InputError, match="has 2 trained turns but 1 returns"):
        assign_turns([Group("t", [two_turns(0, 0)])], lambda t: [1.0], leave_one_out)
