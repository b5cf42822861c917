"""Corrections to imitate, made of episodes with several attempts: a wrong attempt is read, and the right one that follows is learnt."""

from __future__ import annotations

from collections.abc import Sequence

from etude.curation.examples import spliced
from etude.tasks.base import RIGHT
from etude.tasks.revisions import VERDICTS
from etude.types import Segment, Trajectory


def verdicts_at_the_end(trajectory: Trajectory) -> tuple[bool, bool] | None:
    """Whether the last attempt but one was right, and whether the last one was. None where there is no such pair, or one of them could not be judged."""
    last = trajectory.tags.get(VERDICTS, ())[-2:]
    return (last[0] >= RIGHT, last[1] >= RIGHT) if len(last) == 2 and all(v == v for v in last) else None


def corrections(trajectories: Sequence[Trajectory], *, keep_right: bool = False) -> list[Trajectory]:
    """Of the policy's own episodes, those that end with a wrong attempt and then a right one, of which the last attempt alone is learnt.

    keep_right: those that end with two right ones besides, from which a policy learns to leave right answers alone.
    """
    found = [(t, verdicts_at_the_end(t)) for t in trajectories]
    return [corrected(t, t) for t, ends in found if ends is not None and ends[1] and (keep_right or not ends[0])]


def paired_corrections(trajectories: Sequence[Trajectory], *, keep_right: bool = False) -> list[Trajectory]:
    """Every wrong attempt with every right last one at the same task, whoever's episode it ends: far more examples than `corrections`, which the policy never wrote so.

    keep_right: every right attempt with every right last one besides. Attempts that are alike in both parts count once.
    """
    of_task: dict[str, list[tuple[Trajectory, tuple[bool, bool]]]] = {}
    for trajectory in trajectories:
        ends = verdicts_at_the_end(trajectory)
        if ends is not None:
            of_task.setdefault(trajectory.task.id, []).append((trajectory, ends))
    pairs: list[Trajectory] = []
    for rows in of_task.values():
        seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        for before, (right_before, _) in rows:
            if right_before and not keep_right:
                continue
            for after, (_, right_after) in rows:
                key = (tuple(t for s in read_part(before) for t in s.tokens), tuple(after.segments[-1].tokens))
                if right_after and key not in seen:
                    seen.add(key)
                    pairs.append(corrected(before, after))
    return pairs


def corrected(before: Trajectory, after: Trajectory) -> Trajectory:
    """The history of one episode up to its last attempt, and the last attempt of another (or the same) one as what is learnt after it."""
    was_right = (verdicts_at_the_end(before) or (False, False))[0]
    return spliced(before.task, before.prompt, read_part(before), after.segments[-1:], kind="right to right" if was_right else "correction")


def read_part(trajectory: Trajectory) -> list[Segment]:
    """Everything before the last attempt of a judged episode."""
    return trajectory.segments[:-1]
