"""Rounds of attempts: numbering, prompts, and who is judged when."""

from __future__ import annotations

from collections.abc import Sequence

from etude.rollouts import EpisodeRequest, adaptive_rollouts
from etude.types import Group, Message, Segment, Task, Trajectory

TASKS = [Task("a", (Message("user", "a?"),)), Task("b", (Message("user", "b?"),))]
HINT = (Message("user", "hint"),)


class Recorder:
    """Attempts that are nothing, remembered; the reward is the sample's number."""

    def __init__(self) -> None:
        self.batches: list[list[EpisodeRequest]] = []
        self.judged: list[list[tuple[str, list[int]]]] = []

    def attempt(self, requests: Sequence[EpisodeRequest]) -> list[Trajectory]:
        self.batches.append(list(requests))
        return [Trajectory(r.task, [1], [Segment([2], "policy")], "eos", sample=r.sample) for r in requests]

    def judge(self, groups: Sequence[Group]) -> None:
        self.judged.append([(g.key, [t.sample for t in g.trajectories]) for g in groups])
        for group in groups:
            for trajectory in group.trajectories:
                trajectory.reward = float(trajectory.sample)


def test_rounds_go_on_until_nobody_gets_more() -> None:
    made, plan, seen = Recorder(), [[1, 0], [2, 3], [0, 0]], []

    def allocate(groups: Sequence[Group]) -> list[int]:
        seen.append([list(g.rewards) for g in groups])
        return plan[len(seen) - 1]

    groups = adaptive_rollouts(
        TASKS,
        first=2,
        attempt=made.attempt,
        stream=lambda task, place, sample: 100 * place + sample,
        judge=made.judge,
        allocate=allocate,
        prompt=lambda group: HINT if group.key == "b" else None,
    )
    assert [g.key for g in groups] == ["a", "b"]
    # Attempts are numbered through the rounds, so that no two share a stream.
    assert [[t.sample for t in g.trajectories] for g in groups] == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert [[t.tags["round"] for t in g.trajectories] for g in groups] == [[0, 0, 1, 2, 2], [0, 0, 2, 2, 2]]
    streams = [r.stream for batch in made.batches for r in batch]
    assert sorted(streams) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    # A round is one batch, and only its own attempts are judged.
    assert [len(batch) for batch in made.batches] == [4, 1, 5]
    assert made.judged == [[("a", [0, 1]), ("b", [0, 1])], [("a", [2])], [("a", [3, 4]), ("b", [2, 3, 4])]]
    assert seen == [[[0, 1], [0, 1]], [[0, 1, 2], [0, 1]], [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]]
    # The first round has the tasks' own prompts, later ones what `prompt` says.
    assert [[(r.task.id, r.messages) for r in batch] for batch in made.batches] == [
        [("a", None), ("a", None), ("b", None), ("b", None)],
        [("a", None)],
        [("a", None), ("a", None), ("b", HINT), ("b", HINT), ("b", HINT)],
    ]


def test_one_round_where_nothing_is_allocated() -> None:
    made = Recorder()
    groups = adaptive_rollouts(TASKS, first=3, attempt=made.attempt, stream=lambda *_: 0, judge=made.judge, allocate=lambda _: None)
    assert [len(g) for g in groups] == [3, 3]
    assert len(made.batches) == 1
