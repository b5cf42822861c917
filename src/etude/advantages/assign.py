"""Writing advantages onto trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from etude.errors import InputError
from etude.types import Group, Metrics, Trajectory, trajectories_of


def assign_by_group(groups: Sequence[Group], advantage: Callable[[Tensor], Tensor]) -> Metrics:
    """Give every trained token of a trajectory the advantage that `advantage(rewards_G)` gives the trajectory in its group.

    Returns the share of groups that carry no signal (`signal/degenerate`), and of those with a single attempt (`signal/singletons`).
    Raises InputError naming the task of an infinite reward.
    """
    for group in groups:
        for trajectory in group.trajectories:
            if math.isinf(trajectory.reward):
                raise InputError(
                    f"the reward of sample {trajectory.sample} at task {trajectory.task.id!r} is {trajectory.reward}; "
                    "expected a finite number, or NaN for what could not be judged"
                )
        values = advantage(torch.tensor(group.rewards, dtype=torch.float64)).tolist()
        for trajectory, value in zip(group.trajectories, values, strict=True):
            trajectory.set_advantage(value)
    count = max(1, len(groups))
    return {
        "signal/degenerate": sum(not g.has_spread for g in groups) / count,
        "signal/singletons": sum(len(g) == 1 for g in groups) / count,
    }


def assign_tokens(trajectories: Sequence[Trajectory], advantages: Sequence[Sequence[float]]) -> None:
    """Give the trained tokens of each trajectory their own advantages, in order. Raises InputError where there are too many or too few."""
    for trajectory, values in zip(trajectories, advantages, strict=True):
        if len(values) != trajectory.trained_length:
            raise InputError(
                f"the trajectory of task {trajectory.task.id!r} (sample {trajectory.sample}) has {trajectory.trained_length} trained tokens "
                f"but {len(values)} advantages; expected one each"
            )
        position = 0
        for segment in trajectory.segments:
            if segment.trained:
                segment.advantages = list(values[position : position + len(segment.tokens)])
                position += len(segment.tokens)


def whiten_trajectories(groups: Sequence[Group], advantage: Callable[[Tensor], Tensor], whiten: Callable[[Tensor], Tensor]) -> Metrics:
    """Group advantages, then whitened over all judged trajectories of the batch (ProRL's and BroRL's form of the REINFORCE++ baseline).

    Returns what `assign_by_group` does.
    """
    metrics = assign_by_group(groups, advantage)
    values = [v for g in groups for v in advantage(torch.tensor(g.rewards, dtype=torch.float64))]
    judged = [(t, v) for t, v in zip(trajectories_of(groups), values, strict=True) if not math.isnan(t.reward)]
    if judged:
        for (trajectory, _), value in zip(judged, whiten(torch.stack([v for _, v in judged])).tolist(), strict=True):
            trajectory.set_advantage(value)
    return metrics


def whiten_tokens(groups: Sequence[Group], whiten: Callable[[Tensor], Tensor]) -> None:
    """Whiten the advantages that the trajectories have, over all trained tokens of the batch (REINFORCE++). Unjudged trajectories keep theirs."""
    segments = [s for t in trajectories_of(groups) if not math.isnan(t.reward) for s in t.segments if s.trained]
    if not segments:
        return
    flat = whiten(torch.tensor([a for s in segments for a in s.advantages], dtype=torch.float64)).tolist()
    position = 0
    for segment in segments:
        segment.advantages = flat[position : position + len(segment.tokens)]
        position += len(segment.tokens)
