"""Which groups can teach something."""

from __future__ import annotations

import math
from collections.abc import Sequence

from etude.advantages.group import has_signal
from etude.types import Group


def mixed_accuracy(group: Group) -> bool:
    """True when some members were right and others wrong: the accuracies (not the shaped rewards) of the judged ones differ.

    A group in which everyone is right has nothing to teach even where a length penalty tells its members apart (DAPO, arXiv:2503.14476, section 3.2).
    """
    return has_signal([math.nan if math.isnan(t.reward) else t.correct for t in group.trajectories])


def dynamic_sampling(groups: Sequence[Group]) -> list[Group]:
    """The groups with mixed accuracy, in order (the filter of DAPO; sampling on until enough are kept is the caller's loop)."""
    return [g for g in groups if mixed_accuracy(g)]
