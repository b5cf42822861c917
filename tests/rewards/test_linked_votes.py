"""Votes over two linked groups, with numbers worked out by hand."""

from __future__ import annotations

import math
from random import Random

import pytest

from etude.rewards.linked_votes import LinkedVotes, crossed, linked_metrics, matches, own, pooled
from etude.types import Group, Message, Segment, Task, Trajectory

# One wording says 7 mostly, the other 3; together 3 has four votes and 7 three.
FIRST = ["7", "7", "7", "3", None]
SECOND = ["3", "3", "3", "5", "1"]


def rewards(labelling, first, second) -> tuple[list[float], list[float]]:
    linked: LinkedVotes = labelling(first, second, Random(0))
    return matches(first, linked.labels[0]), matches(second, linked.labels[1])


def test_whose_vote_is_the_label() -> None:
    assert rewards(own, FIRST, SECOND) == ([1, 1, 1, 0, 0], [1, 1, 1, 0, 0])
    assert rewards(crossed, FIRST, SECOND) == ([0, 0, 0, 1, 0], [0, 0, 0, 0, 0])
    assert rewards(pooled, FIRST, SECOND) == ([0, 0, 0, 1, 0], [1, 1, 1, 0, 0])
    assert crossed(FIRST, SECOND, Random(0)).labels == ("3", "7")


def test_wordings_that_agree_are_rewarded_alike_by_all() -> None:
    first, second = ["4", "4", "9"], ["4", None, "4"]
    assert rewards(own, first, second) == rewards(crossed, first, second) == rewards(pooled, first, second) == ([1, 1, 0], [1, 0, 1])
    assert crossed(first, second, Random(0)).agree


def test_a_wording_without_an_answer_gives_the_other_nothing() -> None:
    silent = [None, None]
    assert rewards(crossed, ["4", "4"], silent) == ([0, 0], [0, 0])
    assert rewards(own, ["4", "4"], silent) == ([1, 1], [0, 0])
    assert rewards(pooled, ["4", "4"], silent) == ([1, 1], [0, 0])
    # Nobody's answer is nobody's agreement.
    assert not crossed(silent, silent, Random(0)).agree
    assert matches(silent, None) == [0, 0]


def test_groups_may_be_of_different_size() -> None:
    assert rewards(crossed, ["1"], ["1", "2", "2"]) == ([0], [1, 0, 0])


def groups(*rows: tuple[list[str | None], list[float]]) -> tuple[Group, Group]:
    made = []
    for answers, verdicts in rows:
        trajectories = [
            Trajectory(Task("t", (Message("user", "?"),)), [1], [Segment([2], "policy", str(a))], "eos", rewards={} if math.isnan(v) else {"correct": v})
            for a, v in zip(answers, verdicts, strict=True)
        ]
        made.append(Group("t", trajectories))
    return made[0], made[1]


def test_what_the_log_says_of_a_batch() -> None:
    # 3 is right in the first pair, whose votes differ; in the second both vote for 9, which is wrong.
    first = groups((FIRST, [0, 0, 0, 1, 0]), (SECOND, [1, 1, 1, 0, 0]))
    second = groups((["9", "9"], [0, 0]), (["9", "2"], [0, 1]))
    answers = [(FIRST, SECOND), (["9", "9"], ["9", "2"])]
    votes = [crossed(*answers[0], Random(0)), LinkedVotes(own(*answers[1], Random(1)).votes, ("9", "9"))]
    # The second wording's tie is settled by the generator; take the one where it chose 9.
    votes[1] = next(v for v in (crossed(*answers[1], Random(s)) for s in range(20)) if v.labels == ("9", "9"))
    metrics = linked_metrics([first, second], answers, votes)
    assert metrics == pytest.approx(
        {
            "votes/agreement": 1 / 2,
            "votes/majority_ratio": (3 / 5 + 3 / 5 + 1 + 1 / 2) / 4,
            "votes/unanswered": 1 / 14,
            "votes/top_answer": 4 / 14,
            "votes/answers": (2 + 3 + 1 + 2) / 4,
            "votes/majority_accuracy": 1 / 4,
            "votes/agreement_wrong": 1 / 2,
            "votes/label_accuracy": 1 / 4,
            # First pair: the first wording's five are all paid as they deserve, of the second's two; second pair: none.
            "votes/reward_accuracy": (7 / 10 + 0) / 2,
            "votes/right_share": (4 / 10 + 1 / 4) / 2,
        }
    )


def test_attempts_without_verdicts_say_nothing_of_the_truth() -> None:
    nan = [math.nan, math.nan]
    pair = groups((["1", "1"], nan), (["1", "1"], nan))
    metrics = linked_metrics([pair], [(["1", "1"], ["1", "1"])], [crossed(["1", "1"], ["1", "1"], Random(0))])
    assert set(metrics) == {"votes/agreement", "votes/majority_ratio", "votes/unanswered", "votes/top_answer", "votes/answers"}
    assert metrics["votes/top_answer"] == 1
