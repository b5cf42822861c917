"""How stale tokens are, and leaving stale ones out of the loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest

from etude.rollouts import staleness, without_stale_tokens
from etude.types import Group, Message, Segment, Task, Trajectory


def turn(versions: Sequence[int], *, first: int = 10, trained: bool = True) -> Segment:
    count = len(versions)
    return Segment(
        [first + i for i in range(count)],
        "policy" if trained else "tool",
        "whole",
        trained=trained,
        logprobs=[-0.1 * i for i in range(count)] if trained else [],
        entropies=[0.1 * i for i in range(count)] if trained else [],
        versions=list(versions) if trained else [],
        advantages=[float(i) for i in range(count)] if trained else [],
    )


def group(*attempts: Sequence[Segment]) -> Group:
    task = Task("t", (Message("user", "1+1"),))
    return Group("t", [Trajectory(task, [1, 2], list(segments), "eos", sample=i, reward=1.0) for i, segments in enumerate(attempts)])


def test_staleness_counts_trained_tokens_by_updates() -> None:
    # Under version 5: lags 2, 1, 0, 0 and, behind a tool's three tokens, 0, 0; a second attempt of four tokens, all of lag 3.
    found = group([turn([3, 4, 5, 5]), turn([0, 0, 0], trained=False), turn([5, 5])], [turn([2, 2, 2, 2])])
    assert staleness([found], 5) == pytest.approx({"rollout/stale_tokens": 6 / 10, "rollout/lag_mean": 15 / 10, "rollout/lag_max": 3.0})
    assert staleness([], 5) == {}


def test_stale_tokens_become_context_and_everything_else_stays() -> None:
    given = group([turn([3, 4, 5, 5]), turn([0, 0], trained=False), turn([5])], [turn([4, 4])])
    before = copy.deepcopy(given)
    (masked,) = without_stale_tokens([given], 5)
    assert given == before
    first, second = masked.trajectories
    assert [(s.tokens, s.trained, s.author) for s in first.segments] == [
        ([10, 11], False, "policy"),
        ([12, 13], True, "policy"),
        ([10, 11], False, "tool"),
        ([10], True, "policy"),
    ]
    fresh = first.segments[1]
    assert (fresh.versions, fresh.advantages) == ([5, 5], [2.0, 3.0])
    assert fresh.logprobs == pytest.approx([-0.2, -0.3])
    assert (first.tokens, first.generated_length, first.trained_length) == (given.trajectories[0].tokens, 5, 3)
    assert first.segments[0].text == ""
    assert fresh.text == "whole"
    assert (second.trained_length, second.tokens, second.reward) == (0, [10, 11], 1.0)


def test_what_nobody_is_known_to_have_sampled_is_not_stale() -> None:
    given = group([Segment([1, 2], "injected", "x", trained=True)])
    assert without_stale_tokens([given], 9) == [given]
