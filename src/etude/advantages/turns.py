"""Credit for the turns of an episode, each by what it was worth itself: every turn has its reward, its baseline and its own advantage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from etude.errors import InputError
from etude.types import Group, Segment, Trajectory


def trained_turns(trajectory: Trajectory) -> list[Segment]:
    """The turns that enter the loss, in order."""
    return [s for s in trajectory.segments if s.trained]


def turn_returns(rewards: Sequence[float], *, gamma: float) -> list[float]:
    """What each turn is credited with: its own reward and, discounted by `gamma` a turn, those of later ones. 0: nothing but its own; 1: everything that came after."""
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma is {gamma}; expected a number from 0 to 1")
    returns = list(rewards)
    for turn in range(len(returns) - 2, -1, -1):
        returns[turn] += gamma * returns[turn + 1]
    return returns


def assign_turns(groups: Sequence[Group], returns: Callable[[Trajectory], Sequence[float]], advantage: Callable[[Tensor], Tensor]) -> None:
    """Give all tokens of a turn the advantage that `advantage(returns_G)` gives it among the same turns of its group.

    returns: of an attempt, one number for each trained turn. A turn is compared with the turns of the same number alone, given ones of a starting point counted.
    NaN stays out and gets no advantage. Raises InputError where there are too many or too few numbers.
    """
    for group in groups:
        rows = [list(returns(t)) for t in group.trajectories]
        for trajectory, row in zip(group.trajectories, rows, strict=True):
            if len(row) != len(trained_turns(trajectory)):
                raise InputError(
                    f"the trajectory of task {trajectory.task.id!r} (sample {trajectory.sample}) has {len(trained_turns(trajectory))} trained turns "
                    f"but {len(row)} returns; expected one each"
                )
        compared: dict[int, list[tuple[Segment, float]]] = {}
        for trajectory, row in zip(group.trajectories, rows, strict=True):
            for number, turn in enumerate(zip(trained_turns(trajectory), row, strict=True), _given_turns(trajectory)):
                compared.setdefault(number, []).append(turn)
        for turns in compared.values():
            values = advantage(torch.tensor([value for _, value in turns], dtype=torch.float64)).tolist()
            for (segment, _), value in zip(turns, values, strict=True):
                segment.advantages = [value] * len(segment.tokens)


def _given_turns(trajectory: Trajectory) -> int:
    start = trajectory.task.start
    return sum(m.role == "assistant" for m in start.messages) if start is not None else 0


def by_turn(trajectory: Trajectory, values: Sequence[float]) -> list[list[float]]:
    """Numbers of the trained tokens of an attempt, in order, parted by turn."""
    parts: list[list[float]] = []
    position = 0
    for segment in trained_turns(trajectory):
        parts.append(list(values[position : position + len(segment.tokens)]))
        position += len(segment.tokens)
    if position != len(values):
        raise InputError(f"there are {len(values)} numbers for the {position} trained tokens of task {trajectory.task.id!r}; expected one each")
    return parts
