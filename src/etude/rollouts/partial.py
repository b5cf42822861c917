"""Partial rollouts: ask for more groups than are needed, stop when enough are complete, and go on with the rest under the newer weights (APRIL, arXiv:2509.18521).

The slots of a sampler are full only as long as enough sequences run. At the end of a batch the longest few run alone. Here the batch ends when its target is met and
not when everything has ended: what is unfinished waits in a buffer and is resumed, the oldest first, by its token ids, each with the log-probability and the policy
version that it was drawn under. Nothing is drawn twice and nothing is lost, so that answers that are trained on are as long as they would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.rollouts.episodes import Episode, EpisodeRequest, Episodes, close_all
from etude.rollouts.plain import (
    episode_from_plain,
    episode_to_plain,
    request_from_plain,
    request_to_plain,
    task_from_plain,
    task_to_plain,
    trajectory_from_plain,
    trajectory_to_plain,
)
from etude.types import Group, Task, Trajectory

Member = EpisodeRequest | Episode | Trajectory
"""An attempt that has not begun, one that was stopped or runs, or one that has ended."""


@dataclass(slots=True, eq=False)
class PendingGroup:
    """The attempts at one task, on their way. number: its place in the order in which groups were asked for. accepted: it is complete, and was found good."""

    task: Task
    number: int
    members: list[Member]
    accepted: bool = False

    @property
    def complete(self) -> bool:
        return all(isinstance(m, Trajectory) for m in self.members)

    @property
    def written(self) -> list[int]:
        """Versions of the policy that drew its tokens, one a token. Of what runs, those from before it was resumed are known."""
        segments = [s for m in self.members if not isinstance(m, EpisodeRequest) for s in m.segments if s.author == "policy"]
        begun = [m.writing for m in self.members if isinstance(m, Episode) and m.writing is not None]
        return [v for part in (*segments, *begun) for v in part.versions]

    def group(self) -> Group:
        """The group, once it is complete."""
        return Group(self.task.id, [m for m in self.members if isinstance(m, Trajectory)])

    def to_plain(self) -> dict[str, Any]:
        members: list[tuple[str, Any]] = []
        for member in self.members:
            if isinstance(member, Trajectory):
                members.append(("ended", trajectory_to_plain(member)))
            elif isinstance(member, Episode):
                members.append(("stopped", episode_to_plain(member)))
            else:
                members.append(("waiting", request_to_plain(member)))
        return {"task": task_to_plain(self.task), "number": self.number, "members": members, "accepted": self.accepted}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> PendingGroup:
        read: dict[str, Callable[[Any], Member]] = {"ended": trajectory_from_plain, "stopped": episode_from_plain, "waiting": request_from_plain}
        return cls(task_from_plain(plain["task"]), plain["number"], [read[kind](member) for kind, member in plain["members"]], plain["accepted"])


@dataclass
class Gathered:
    """What one phase gave. accepted: the groups to train on, in the order in which they were asked for. rejected: complete groups that the filter did not want.

    overdue: groups that were so old that the phase went on until they were complete. dropped_tokens: what was thrown away unfinished.
    """

    accepted: list[Group] = field(default_factory=list)
    rejected: list[Group] = field(default_factory=list)
    overdue: int = 0
    dropped_tokens: int = 0


class PartialRollouts:
    """The schedule, and the buffer of groups that are not trained on yet.

    target: groups that a phase has to complete (N). requested: groups that are in flight or complete at the start of it (N' >= N); with N' = N nothing is ever left
    over and a phase is an ordinary batch. most_rejected: complete groups that are not accepted are replaced by further ones, until there are so many of them in a
    phase; it then ends with what there is. max_lag: a group whose oldest token is this many updates old is waited for, so that no token is trained on later
    (0: no limit; where more than the target are as old, the newer of them have to wait). keep: go on with unfinished groups later; without it they are thrown away.
    """

    def __init__(self, target: int, requested: int, *, most_rejected: int = 1, max_lag: int = 0, keep: bool = True) -> None:
        if not 1 <= target <= requested:
            raise ValueError(f"target is {target} and requested {requested}; expected at least one group, and no fewer requested than wanted")
        self.target, self.requested = target, requested
        self.most_rejected, self.max_lag, self.keep = most_rejected, max_lag, keep
        self.buffer: list[PendingGroup] = []
        """Groups that wait for the next phase, the oldest first; some may be complete."""
        self.asked = 0

    def ask(self, attempts: Iterable[tuple[Task, Sequence[EpisodeRequest]]]) -> None:
        """Put fresh groups at the end of the buffer: a task, and the attempts to make at it."""
        for task, requests in attempts:
            self.buffer.append(PendingGroup(task, self.asked, list(requests)))
            self.asked += 1

    def collect(self, episodes: Episodes, more: Callable[[int], None], accept: Callable[[Group], bool] | None = None) -> Gathered:
        """Gather `target` groups, from the buffer first.

        more(count): `ask` for that many fresh groups, where the buffer runs out. accept: whether a complete group counts towards the target; by default all do.
        It is asked once for each group, while others run, so that it must not use their sampler.
        """
        flight: list[PendingGroup] = []
        accepted: list[PendingGroup] = []
        rejected: list[PendingGroup] = []
        place: dict[Episode, tuple[PendingGroup, int]] = {}
        old: set[PendingGroup] = set()
        version = episodes.policy.sampler.version
        while True:
            if len(accepted) + len(flight) < self.target:
                if rejected and len(rejected) >= self.most_rejected:
                    break
                for group in self._take(self.requested - len(accepted) - len(flight), more):
                    if self.max_lag and version - min(group.written, default=version) >= self.max_lag:
                        old.add(group)
                    _submit(group, episodes, place)
                    flight.append(group)
            complete = [group for group in flight if group.complete]
            if complete:
                flight = [group for group in flight if not group.complete]
                for group in complete:
                    group.accepted = group.accepted or accept is None or accept(group.group())
                    (accepted if group.accepted else rejected).append(group)
            if len(accepted) >= self.target and not any(group in old for group in flight):
                break
            for episode in episodes.step():
                group, index = place.pop(episode)
                group.members[index] = episode.trajectory()
        episodes.stop()
        accepted.sort(key=lambda group: group.number)
        result = Gathered([g.group() for g in accepted[: self.target]], [g.group() for g in rejected], overdue=len(old))
        if self.keep:
            self.buffer += flight
        else:
            result.dropped_tokens = sum(len(group.written) for group in flight)
            _close(flight)
        self.buffer = sorted(self.buffer + accepted[self.target :], key=lambda group: group.number)
        return result

    def _take(self, count: int, more: Callable[[int], None]) -> list[PendingGroup]:
        if count > len(self.buffer):
            more(count - len(self.buffer))
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def close(self) -> None:
        """Close the environments of what waits. It can still be saved, and gone on with in fresh environments."""
        _close(self.buffer)

    def state(self) -> dict[str, Any]:
        return {"asked": self.asked, "buffer": [group.to_plain() for group in self.buffer]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.close()
        self.asked = int(state["asked"])
        self.buffer = [PendingGroup.from_plain(group) for group in state["buffer"]]


def _submit(group: PendingGroup, episodes: Episodes, place: dict[Episode, tuple[PendingGroup, int]]) -> None:
    """Begin or resume what has not ended."""
    for index, member in enumerate(group.members):
        if isinstance(member, EpisodeRequest):
            member = group.members[index] = episodes.add(member)
        elif isinstance(member, Episode):
            episodes.resume(member)
        else:
            continue
        place[member] = group, index


def _close(groups: Iterable[PendingGroup]) -> None:
    waiting = [m for group in groups for m in group.members if isinstance(m, Episode) and m.environment is not None]
    close_all([m.environment for m in waiting if m.environment is not None])
    for member in waiting:
        member.environment = None
