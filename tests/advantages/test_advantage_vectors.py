"""Advantages against numbers worked out by hand, and the rules that hold for every group."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from etude.advantages import (
    assign_by_group,
    assign_tokens,
    batch_normalised,
    centred,
    group_normalised,
    leave_one_out,
    returns_to_go,
    rewards_with_kl,
    whiten,
    whiten_tokens,
    whiten_trajectories,
)
from etude.errors import InputError
from etude.rollouts import is_mixed
from etude.types import Group, Message, Segment, Task, Trajectory

Advantage = Callable[[Tensor], Tensor]

TASK = Task("t", (Message("user", "?"),))
population = partial(group_normalised, ddof=0)
COMPARISONS: list[Advantage] = [group_normalised, population, centred, leave_one_out]
# How long an example takes is the machine's affair.
untimed = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
rewards_of_a_group = st.lists(st.integers(-16, 16).map(lambda k: k / 8), min_size=1, max_size=12)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor | list[float], expected: list[float], tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(torch.as_tensor(actual, dtype=torch.float64), tensor(*expected), atol=tolerance, rtol=0, equal_nan=False)


def attempt(length: int, reward: float, **rewards: float) -> Trajectory:
    return Trajectory(TASK, [2], [Segment([3] * length, "policy", trained=True)], "eos", reward=reward, rewards=rewards)


def group(rewards: list[float], lengths: list[int]) -> Group:
    return Group("t", [attempt(n, r) for n, r in zip(lengths, rewards, strict=True)])


def advantages_of(groups: list[Group]) -> list[list[float]]:
    return [[a for s in t.segments for a in s.advantages] for g in groups for t in g.trajectories]


HALF = 0.8660254


@pytest.mark.parametrize(
    ("advantage", "rewards", "expected"),
    [
        (group_normalised, [1, 0, 0, 1], [HALF, -HALF, -HALF, HALF]),
        (partial(group_normalised, eps=1e-4), [1, 0, 0, 1], [0.8658754, -0.8658754, -0.8658754, 0.8658754]),
        (population, [1, 0, 0, 1], [1, -1, -1, 1]),
        (centred, [1, 0, 0, 1], [0.5, -0.5, -0.5, 0.5]),
        (leave_one_out, [1, 0, 0, 1], [2 / 3, -2 / 3, -2 / 3, 2 / 3]),
        (group_normalised, [1, 0, 0, 0], [1.5, -0.5, -0.5, -0.5]),
        (population, [1, 0, 0, 0], [1.7320508, -0.5773503, -0.5773503, -0.5773503]),
        (centred, [1, 0, 0, 0], [0.75, -0.25, -0.25, -0.25]),
        (leave_one_out, [1, 0, 0, 0], [1, -1 / 3, -1 / 3, -1 / 3]),
        (partial(group_normalised, eps=0.0), [0.5, 1, 0, 0.1], [0.219971, 1.319824, -0.879883, -0.659912]),
        (group_normalised, [0.5, 1, 0, 0.1], [0.219971, 1.319824, -0.879883, -0.659912]),
    ],
)
def test_groups_worked_out_by_hand(advantage: Advantage, rewards: list[float], expected: list[float]) -> None:
    close(advantage(tensor(*rewards)), expected)


def test_eps_of_1e_4_is_told_from_1e_6() -> None:
    close(group_normalised(tensor(1, 0, 0, 1), eps=1e-4), [0.8658754, -0.8658754, -0.8658754, 0.8658754], tolerance=1e-7)


@pytest.mark.parametrize("advantage", COMPARISONS)
@pytest.mark.parametrize("rewards", [[1.0] * 4, [0.1] * 3, [1.0], [0.0], [-7.5], [math.nan], [math.nan, 1.0], [math.nan, 0.1, 0.1]])
def test_equal_single_and_unjudged_rewards_give_exact_zeros(advantage: Advantage, rewards: list[float]) -> None:
    assert advantage(tensor(*rewards)).tolist() == [0.0] * len(rewards)


@pytest.mark.parametrize("advantage", COMPARISONS)
def test_an_unjudged_reward_stays_out_of_the_statistics(advantage: Advantage) -> None:
    judged = advantage(tensor(1, 0, 0)).tolist()
    close(advantage(tensor(1, math.nan, 0, 0)), [judged[0], 0.0, judged[1], judged[2]], tolerance=1e-12)


@pytest.mark.parametrize("advantage", COMPARISONS)
@untimed
@given(rewards=rewards_of_a_group, constant=st.integers(-64, 64).map(lambda k: k / 4))
def test_a_constant_added_to_a_group_changes_nothing(advantage: Advantage, rewards: list[float], constant: float) -> None:
    close(advantage(tensor(*rewards) + constant), advantage(tensor(*rewards)).tolist(), tolerance=1e-9)


@pytest.mark.parametrize("advantage", COMPARISONS)
@untimed
@given(rewards=rewards_of_a_group, data=st.data())
def test_advantages_sum_to_zero_and_follow_their_trajectory(advantage: Advantage, rewards: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rewards))))
    values = advantage(tensor(*rewards))
    assert abs(float(values.sum())) < 1e-9
    close(advantage(tensor(*(rewards[i] for i in order))), values[order].tolist(), tolerance=1e-9)


@untimed
@given(rewards=rewards_of_a_group)
def test_leave_one_out_is_the_reward_minus_the_others_mean(rewards: list[float]) -> None:
    others = [sum(rewards[:i] + rewards[i + 1 :]) / max(1, len(rewards) - 1) for i in range(len(rewards))]
    expected = [r - o for r, o in zip(rewards, others, strict=True)] if len(rewards) > 1 else [0.0]
    close(leave_one_out(tensor(*rewards)), expected, tolerance=1e-9)


def test_batch_normalisation_uses_one_scale_for_all_groups() -> None:
    # Rewards 1, 0, 3, 1, NaN: mean 5/4, squared deviations 1/16 + 25/16 + 49/16 + 1/16 = 76/16, over 3 -> variance 19/12.
    first, second = batch_normalised([tensor(1, 0), tensor(3, 1, math.nan)], eps=0.0)
    scale = math.sqrt(19 / 12)
    close(first, [0.5 / scale, -0.5 / scale])
    close(second, [1 / scale, -1 / scale, 0.0])
    assert [v.tolist() for v in batch_normalised([tensor(1, 1), tensor(1)])] == [[0.0, 0.0], [0.0]]
    assert [v.tolist() for v in batch_normalised([tensor(5)])] == [[0.0]]
    assert [v.tolist() for v in batch_normalised([tensor(math.nan), tensor(math.nan, 1)])] == [[0.0], [0.0, 0.0]]


def test_batch_normalisation_of_nothing_is_nothing(recwarn: pytest.WarningsRecorder) -> None:
    assert batch_normalised([]) == []
    assert [v.tolist() for v in batch_normalised([tensor()])] == [[]]
    assert not recwarn.list


@pytest.mark.parametrize("advantage", [*COMPARISONS, lambda rewards: batch_normalised([rewards])[0]])
@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_reward_is_refused_instead_of_spreading(advantage: Advantage, value: float) -> None:
    with pytest.raises(InputError, match=r"a reward is infinite \(1, -?inf, nan\); expected finite numbers, or NaN"):
        advantage(tensor(1, value, math.nan))


def test_an_infinite_reward_is_named_by_its_task() -> None:
    with pytest.raises(InputError, match="the reward of sample 0 at task 't' is inf; expected a finite number"):
        assign_by_group([group([1, math.inf], [1, 1])], centred)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_is_not_whitened(value: float) -> None:
    with pytest.raises(InputError, match="a value to whiten is not finite"):
        whiten(tensor(1, value, 0))


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, [1.0, 1.0, 1.0]), (0.5, [0.25, 0.5, 1.0])])
def test_returns_of_a_reward_at_the_end(gamma: float, expected: list[float]) -> None:
    close(returns_to_go(tensor(0, 0, 1), gamma=gamma), expected)


def test_divergence_inside_the_reward() -> None:
    kl = tensor(0.1, -0.2, 0.3)
    rewards = rewards_with_kl(1.0, kl, beta=0.1)
    close(rewards, [-0.01, 0.02, 0.97])
    close(returns_to_go(rewards), [0.98, 0.99, 0.97])
    close(kl, [0.1, -0.2, 0.3], tolerance=0)


def test_whitening_over_tokens_and_over_trajectories() -> None:
    groups = [group([1, 0], [1, 3]), group([1, 1], [2, 2])]
    assign_by_group(groups, centred)
    assert advantages_of(groups) == [[0.5], [-0.5] * 3, [0.0, 0.0], [0.0, 0.0]]
    whiten_tokens(groups, whiten)
    close([a for t in advantages_of(groups) for a in t], [1.7677670] + [-1.0606602] * 3 + [0.3535534] * 4)
    assert whiten_trajectories(groups, centred, whiten) == {"signal/degenerate": 0.5, "signal/singletons": 0.0}
    close([a for t in advantages_of(groups) for a in t], [1.2247449] + [-1.2247449] * 3 + [0.0] * 4)


@pytest.mark.parametrize("over", ["tokens", "trajectories"])
@untimed
@given(rewards=st.lists(rewards_of_a_group, min_size=1, max_size=4), data=st.data())
def test_whitening_does_not_depend_on_the_order_of_groups_nor_on_their_level(over: str, rewards: list[list[float]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rewards))))
    level = data.draw(st.lists(st.integers(-8, 8).map(float), min_size=len(rewards), max_size=len(rewards)))

    def whitened(groups: list[Group]) -> list[list[float]]:
        if over == "trajectories":
            whiten_trajectories(groups, centred, whiten)
        else:
            assign_by_group(groups, centred)
            whiten_tokens(groups, whiten)
        return [[a for t in g.trajectories for s in t.segments for a in s.advantages] for g in groups]

    plain = whitened([group(r, [1 + i % 3 for i in range(len(r))]) for r in rewards])
    changed = whitened([group([v + level[i] for v in rewards[i]], [1 + j % 3 for j in range(len(rewards[i]))]) for i in order])
    for place, i in enumerate(order):
        close(changed[place], plain[i], tolerance=1e-6)


def test_an_unjudged_trajectory_keeps_advantage_zero_through_whitening() -> None:
    alone = [group([1, 0], [1, 3])]
    joined = [group([1, 0, math.nan], [1, 3, 5])]
    for groups in (alone, joined):
        assign_by_group(groups, centred)
        whiten_tokens(groups, whiten)
    assert advantages_of(joined)[2] == [0.0] * 5
    close([a for t in advantages_of(joined)[:2] for a in t], [a for t in advantages_of(alone) for a in t], tolerance=1e-9)


@untimed
@given(st.lists(st.integers(-40, 40).map(lambda k: k / 4), min_size=2, max_size=20).filter(lambda v: max(v) > min(v)))
def test_whitened_values_have_zero_mean_and_unit_variance(values: list[float]) -> None:
    result = whiten(tensor(*values))
    assert abs(float(result.mean())) < 1e-6
    assert abs(float(result.var()) - 1) < 1e-5


def test_whitening_one_value_or_none() -> None:
    assert whiten(tensor(3)).tolist() == [0.0]
    assert whiten(tensor()).tolist() == []
    whiten_tokens([], whiten)


def test_groups_without_signal_are_counted() -> None:
    groups = [group([1, 0], [1, 2]), group([1, 1], [1, 1]), group([1], [2]), group([math.nan, 1], [1, 1])]
    assert assign_by_group(groups, group_normalised) == {"signal/degenerate": 0.75, "signal/singletons": 0.25}
    close([a for t in advantages_of(groups) for a in t], [0.7071068, -0.7071068, -0.7071068] + [0.0] * 6)
    assert assign_by_group([], centred) == {"signal/degenerate": 0.0, "signal/singletons": 0.0}


def test_token_advantages_skip_what_is_not_trained() -> None:
    parts = [Segment([3, 4], "policy", trained=True), Segment([5, 6, 7], "tool"), Segment([8], "policy", trained=True)]
    trajectory = Trajectory(TASK, [2], parts, "eos")
    assign_tokens([trajectory], [[0.1, 0.2, 0.3]])
    assert [s.advantages for s in trajectory.segments] == [[0.1, 0.2], [], [0.3]]
    with pytest.raises(InputError, match="3 trained tokens but 2 advantages"):
        assign_tokens([trajectory], [[0.1, 0.2]])


def test_only_groups_with_right_and_wrong_answers_are_mixed() -> None:
    verdicts = [[1.0, 1, 1, 1], [0.0, 0, 0, 0], [1.0, 0, 0, 1]]
    assert [is_mixed(Group("t", [attempt(1, v, correct=v) for v in g])) for g in verdicts] == [False, False, True]
    shaped = Group("t", [attempt(1, 1.0, correct=1.0), attempt(1, 0.5, correct=1.0)])
    assert shaped.has_spread
    assert not is_mixed(shaped)
    assert not is_mixed(Group("t", [attempt(1, math.nan), attempt(1, 1.0)]))
