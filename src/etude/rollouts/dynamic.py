"""Dynamic sampling: go on to further tasks until there are enough groups that teach, by default those with right and wrong attempts (DAPO, arXiv:2503.14476)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from etude.types import Group, Task


def is_mixed(group: Group) -> bool:
    """True when some attempts are right and some are not, by the verifier's verdict, not by the shaped reward."""
    verdicts = [t.correct for t in group.trajectories if not math.isnan(t.correct)]
    return len(verdicts) > 1 and max(verdicts) - min(verdicts) > 1e-9


def until_enough(
    tasks: Sequence[Task],
    *,
    attempt: Callable[[Sequence[Task], int], list[Group]],
    more: Callable[[int], Sequence[Task]],
    wanted: int,
    rounds: int,
    teaches: Callable[[Group], bool] = is_mixed,
) -> tuple[list[Group], list[Group]]:
    """Try tasks, then as many further ones as groups that teach are missing, for `rounds` rounds at most. Returns everything that was
    tried, and the groups of it that teach.

    attempt(tasks, round) gives one judged group a task; more(count) the tasks that come next. teaches(group) says which groups count. There are
    `wanted` of these at most, less where the rounds ran out.
    """
    everything: list[Group] = []
    teaching: list[Group] = []
    for number in range(rounds):
        groups = attempt(tasks, number)
        everything += groups
        teaching += [group for group in groups if teaches(group)]
        if len(teaching) >= wanted or number == rounds - 1:
            break
        tasks = more(wanted - len(teaching))
    return everything, teaching[:wanted]
