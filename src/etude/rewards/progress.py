"""Paying for progress: what an attempt adds to the one before it."""

from __future__ import annotations

from collections.abc import Sequence


def with_progress(rewards: Sequence[float], *, alpha: float) -> list[float]:
    """r_1, and r_i + alpha (r_i - r_(i-1)) for every later attempt (SCoRe, arXiv:2409.12917, section 5.2).

    With alpha 10 and rewards of 0 and 1 a second attempt is worth 1 where both are right, 11 where it mends, 0 where both are wrong, and -10 where it spoils.
    """
    return [own + alpha * (own - before) for own, before in zip(rewards, [rewards[0], *rewards], strict=False)] if rewards else []
