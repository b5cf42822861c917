"""Write advantages onto trajectories, and count the groups that teach nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from etude.advantages.group import has_signal, judged
from etude.errors import InputError
from etude.types import Group, Metrics, Trajectory, trajectories_of

GroupAdvantage = Callable[[Sequence[float]], list[float]]
"""Rewards of one group -> one advantage per trajectory."""

BatchAdvantage = Callable[[Sequence[Sequence[float]]], list[list[float]]]
"""Rewards of all groups -> one advantage per trajectory, group by group."""


def assign(groups: Sequence[Group], advantage: GroupAdvantage) -> Metrics:
    """Give every trajectory, on all its trained tokens, the advantage that its own group says. Returns `signal/...` counts, see `signal_metrics`."""
    return assign_over_batch(groups, lambda rewards: [advantage(r) for r in rewards])


def assign_over_batch(groups: Sequence[Group], advantage: BatchAdvantage) -> Metrics:
    """As `assign`, for advantages that look at all groups at once."""
    for group, values in zip(groups, advantage([g.rewards for g in groups]), strict=True):
        for trajectory, value in zip(group.trajectories, values, strict=True):
            trajectory.set_advantage(value)
    return signal_metrics(groups)


def assign_tokens(trajectories: Sequence[Trajectory], advantages: Sequence[Sequence[float]]) -> None:
    """Give each trajectory one advantage per trained token, in order."""
    for trajectory, values in zip(trajectories, advantages, strict=True):
        if len(values) != trajectory.trained_length:
            raise InputError(
                f"the trajectory of task {trajectory.task.id!r} (sample {trajectory.sample}) has {trajectory.trained_length} trained tokens but {len(values)} advantages; "
                "expected one each"
            )
        start = 0
        for segment in trajectory.segments:
            if segment.trained:
                segment.advantages = [float(v) for v in values[start : start + len(segment.tokens)]]
                start += len(segment.tokens)


def signal_metrics(groups: Sequence[Group]) -> Metrics:
    """How much the groups can teach.

    `signal/degenerate`: groups without two judged, different rewards; of these `signal/degenerate_singleton` have fewer than two judged members and
    `signal/degenerate_equal` equal rewards. `signal/unjudged`: trajectories without a reward. `signal/advantage_abs`: mean |advantage| per trained token.
    """
    counts = [int(judged(g.rewards).sum()) for g in groups]
    singletons = sum(n < 2 for n in counts)
    degenerate = sum(not has_signal(g.rewards) for g in groups)
    advantages = [a for t in trajectories_of(groups) for s in t.segments if s.trained for a in s.advantages]
    return {
        "signal/degenerate": float(degenerate),
        "signal/degenerate_singleton": float(singletons),
        "signal/degenerate_equal": float(degenerate - singletons),
        "signal/unjudged": float(sum(len(g) for g in groups) - sum(counts)),
        "signal/advantage_abs": float(np.abs(advantages).mean()) if advantages else 0.0,
    }
