"""Which attempts stay: hand-worked groups, and what must hold for any."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.rollouts.downsample import (
    at_random,
    form_penalty,
    least_penalised,
    penalty_of,
    quotas,
    resample_on_correct,
    tool_penalty,
    weighted_by_penalty,
)
from etude.types import Message, Segment, Task, Trajectory


def test_penalties_of_hand_worked_attempts() -> None:
    assert tool_penalty(4, 1) + form_penalty(answers=1, turns=3) == 0.25
    assert tool_penalty(0, 0) + form_penalty(answers=2, turns=4) == 0.75
    assert tool_penalty(2, 0) + form_penalty(answers=0, turns=2) == 1.0
    assert form_penalty(answers=9, turns=2) == 1.0
    assert form_penalty(answers=1, turns=0) == 1.0
    assert tool_penalty(0, 0, tool_free=0.0) == 0.0


@pytest.mark.parametrize(
    ("positives", "negatives", "keep", "kept"),
    [
        (4, 4, 4, (2, 2)),
        (1, 7, 4, (1, 3)),
        (7, 1, 4, (3, 1)),
        # 5 of 8 wrong, 2.5 to keep: half to even.
        (3, 5, 4, (2, 2)),
        (5, 3, 4, (2, 2)),
        # 15 of 16 wrong: their share is 7.5, rounded to 8, and the floor leaves the only right one its place.
        (1, 15, 8, (1, 7)),
        # 2 of 16 right: their share is 1, their floor 2.
        (2, 14, 8, (2, 6)),
        (14, 2, 8, (6, 2)),
        # No larger than what is kept: all of it.
        (2, 1, 4, (2, 1)),
        # Floors of 2 and 2 do not fit into 2 or 3.
        (5, 1, 2, (1, 1)),
        (4, 2, 3, (2, 1)),
        (4, 4, 1, (1, 0)),
        (0, 4, 2, (0, 2)),
        (0, 0, 4, (0, 0)),
    ],
)
def test_quotas_are_proportional_with_floors(positives: int, negatives: int, keep: int, kept: tuple[int, int]) -> None:
    assert quotas(positives, negatives, keep) == kept


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(0, 5))
def test_quotas_always_fill_and_never_exceed_a_pool(positives: int, negatives: int, keep: int, least_right: int, least_wrong: int) -> None:
    right, wrong = quotas(positives, negatives, keep, min_positives=least_right, min_negatives=least_wrong)
    assert right + wrong == min(keep, positives + negatives)
    assert 0 <= right <= positives
    assert 0 <= wrong <= negatives
    if least_right + least_wrong <= keep <= positives + negatives:
        assert right >= min(least_right, positives)
        assert wrong >= min(least_wrong, negatives)


def test_the_least_penalised_positives_stay_and_negatives_are_drawn() -> None:
    rewards = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    penalties = [0.0, 9.0, 0.5, 9.0, 0.2, 9.0, 0.9, 9.0]
    drawn = set()
    for seed in range(40):
        kept = resample_on_correct(rewards, penalties, 4, Random(seed))
        assert [i for i in kept if rewards[i] > 0] == [0, 4]
        drawn.add(tuple(i for i in kept if rewards[i] == 0))
    # All pairs of the four wrong ones.
    assert len(drawn) == 6


def test_equal_penalties_keep_the_first_and_the_only_positive_always_stays() -> None:
    assert least_penalised([0.5, 0.5, 0.25, 0.5], 3) == [2, 0, 1]
    kept = resample_on_correct([0.0] * 7 + [1.0], [0.0] * 7 + [3.0], 4, Random(0))
    assert len(kept) == 4
    assert 7 in kept


def test_groups_without_a_difference_are_dropped_and_unjudged_attempts_never_stay() -> None:
    assert resample_on_correct([1.0] * 8, [0.0] * 8, 4, Random(0)) == []
    assert resample_on_correct([0.0] * 8, [0.0] * 8, 4, Random(0)) == []
    assert resample_on_correct([], [], 4, Random(0)) == []
    assert resample_on_correct([1.0, math.nan, 0.0, math.nan], [0.0] * 4, 4, Random(0)) == [0, 2]
    assert resample_on_correct([1.0, math.nan], [0.0] * 2, 4, Random(0)) == []


def test_weights_fall_with_the_penalty() -> None:
    random = Random(0)
    first = [weighted_by_penalty([0.0, 0.9], 1, random)[0] for _ in range(4000)]
    # Weights 10 and 1: the clean one is drawn in 10 of 11 cases, give or take three standard errors.
    assert first.count(0) / 4000 == pytest.approx(10 / 11, abs=0.014)
    assert sorted(weighted_by_penalty([0.1, 0.2, 0.3], 3, random)) == [0, 1, 2]


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, math.nan]), st.floats(0, 2)), max_size=20), st.integers(1, 12), st.sampled_from(["sorted", "weighted"]))
def test_what_stays_is_part_of_the_group_and_has_both_kinds(attempts: list[tuple[float, float]], keep: int, prefer: str) -> None:
    rewards, penalties = [r for r, _ in attempts], [p for _, p in attempts]
    kept = resample_on_correct(rewards, penalties, keep, Random(1), prefer=prefer)  # type: ignore[arg-type]
    assert kept == sorted(set(kept))
    judged = [r for r in rewards if not math.isnan(r)]
    if len(set(judged)) < 2:
        assert kept == []
    else:
        assert len(kept) == min(keep, len(judged))
        assert all(not math.isnan(rewards[i]) for i in kept)
        if keep >= 2:
            assert {rewards[i] for i in kept} == {0.0, 1.0}


def test_the_control_draws_whatever_happened() -> None:
    assert {tuple(at_random(4, 2, Random(seed))) for seed in range(60)} == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert at_random(3, 8, Random(0)) == [0, 1, 2]


def attempt(turns: list[str], calls: int = 0, errors: int = 0) -> Trajectory:
    segments = [segment for text in turns for segment in (Segment([], "policy", text), Segment([], "tool", "answer: 1"))]
    return Trajectory(Task("t", (Message("user", "q"),)), [], segments, "environment", tags={"tool_calls": calls, "tool_errors": errors} if calls else {})


def test_a_penalty_reads_the_environments_counts_and_the_policys_answers() -> None:
    assert penalty_of(attempt(["call", "call", "answer: 3"], calls=2, errors=1)) == 0.5
    assert penalty_of(attempt(["answer: 3"])) == 0.5
    assert penalty_of(attempt(["answer: 3"]), tool_free=0.0) == 0.0
    assert penalty_of(attempt(["answer: 2", "answer: 3"], calls=1)) == 0.5
    assert penalty_of(attempt(["call", "no idea"], calls=1)) == 1.0
    assert penalty_of(attempt(["call", "no idea"], calls=1, errors=1), form=False) == 1.0
    assert penalty_of(attempt(["call", "answer: 2"], calls=1, errors=1), errors=False) == 0.0
