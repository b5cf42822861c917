"""A penalty for answers that run into the length limit."""

from __future__ import annotations

from collections.abc import Iterable

from etude.errors import InputError
from etude.types import Trajectory


def overlong(length: int, *, max_length: int, cache: int) -> float:
    """Soft length penalty in [-1, 0] (DAPO, arXiv:2503.14476, section 3.4).

    0 up to `max_length - cache` tokens, then falling linearly to -1 at `max_length`; -1 beyond. In the paper `max_length` is what may be generated,
    20480 tokens, and an answer is expected to need 16384: the cache comes on top of what is expected.
    """
    if not 0 < cache <= max_length:
        raise InputError(f"the length penalty begins {cache} tokens before a limit of {max_length}; expected from 1 to {max_length}")
    free = max_length - cache
    return max(-1.0, min(0.0, (free - length) / cache))


def add_overlong(trajectories: Iterable[Trajectory], *, max_length: int, cache: int, weight: float = 1.0) -> None:
    """Record the penalty of each judged trajectory's generated length as the component `overlong` and add it, times `weight`, to the reward."""
    for trajectory in trajectories:
        penalty = overlong(trajectory.generated_length, max_length=max_length, cache=cache)
        trajectory.rewards["overlong"] = penalty
        trajectory.reward += weight * penalty
