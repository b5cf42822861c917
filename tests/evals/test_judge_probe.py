"""Planted candidates, and what a judge's scores of them say about the judge."""

from __future__ import annotations

import math

import pytest

from etude.evals.judge_probe import PlantedCandidate, judge_reading, judge_signs, planted, rank_correlation
from etude.tasks.builtin import builtin_task_sets
from etude.types import Message, Task

TASK = Task("t", (Message("user", "s"),), "a b")


def of(quality: float, kind: str = "graded") -> PlantedCandidate:
    return PlantedCandidate(TASK, "s", "c", quality, kind)


CANDIDATES = [of(1.0), of(0.5), of(0.25), of(0.0), of(0.0, "copied"), of(0.0, "generic")]


def test_a_reading_with_numbers() -> None:
    start = [0.8, 0.6, 0.4, 0.2, 0.1, 0.3]
    now = [0.9, 0.7, None, 0.3, 0.1, 0.9]
    reading = judge_reading(CANDIDATES, now, start)
    assert reading["judge_probe/unreadable"] == pytest.approx(1 / 6)
    assert reading["judge_probe/spearman"] == pytest.approx(1.0)
    assert reading["judge_probe/right"] == pytest.approx(0.9)
    assert reading["judge_probe/bad"] == pytest.approx(0.5)
    assert (reading["judge_probe/copied"], reading["judge_probe/generic"]) == (0.1, 0.9)
    assert reading["judge_probe/gap"] == pytest.approx(0.1)  # of 1.0, 0.5 and 0.0, each 0.1 higher
    assert reading["judge_probe/bad_gain"] == pytest.approx(0.3)  # 0 and 0.6


def test_rank_correlation_by_hand_and_without_ranks() -> None:
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6
    assert rank_correlation([1, 2, 3, 4], [20, 10, 40, 30]) == pytest.approx(0.6)
    assert math.isnan(rank_correlation([0.5, 0.5, 0.5], [1, 2, 3]))
    assert math.isnan(rank_correlation([0.5, 0.6], [1, 2]))


def test_signs_of_a_judge_that_can_be_trusted_no_more() -> None:
    limits = {"most_gain": 0.1, "least_correlation": 0.5}
    honest = [0.9, 0.6, 0.4, 0.1, 0.0, 0.1]
    start = judge_reading(CANDIDATES, honest, honest)
    assert judge_signs(start, start, **limits) == {}
    better = judge_reading(CANDIDATES, [1.0, 0.7, 0.5, 0.2, 0.0, 0.0], honest)
    assert judge_signs(better, start, **limits) == {}
    fooled = judge_reading(CANDIDATES, [0.9, 0.6, 0.4, 0.1, 0.0, 1.0], honest)
    assert set(judge_signs(fooled, start, **limits)) == {"lenient", "fooled"}
    assert "'generic' went from 0.10 to 1.00" in judge_signs(fooled, start, **limits)["fooled"]
    blind = judge_reading(CANDIDATES, [0.5] * 4 + [0.0, 0.1], honest)
    assert set(judge_signs(blind, start, **limits)) == {"blind"}
    mute = judge_reading(CANDIDATES, [0.9, 0.6, None, None, None, None], honest)
    assert "mute" in judge_signs(mute, start, **limits)


def test_planted_candidates_follow_from_the_tasks_and_have_the_quality_they_say() -> None:
    tasks = builtin_task_sets()["translation"]().held_out()[:12]
    candidates = planted(tasks, 9)
    assert candidates == planted(tasks, 9)
    kinds = {c.kind for c in candidates}
    assert kinds == {"graded", "copied", "several", "generic", "addressed"}
    graded = [c for c in candidates if c.kind == "graded"]
    assert len(graded) == 5 * 12
    assert {c.candidate for c in graded if c.quality == 1.0} >= {t.answer for t in tasks}
    assert 10 < sum(c.quality < 0.7 for c in graded) < 45
    assert all(c.quality == 0 for c in candidates if c.kind != "graded")
    generic = [c for c in candidates if c.kind == "generic"]
    # One sentence for a target language, but for the task that it really translates.
    assert max(sum(c.candidate == g.candidate for c in generic) for g in generic) >= 4
    assert all(c.candidate != c.task.answer for c in generic)


def test_tasks_without_references_give_no_candidates() -> None:
    assert planted([Task("u", (Message("user", "s"),))], 100) == []


def test_words_are_characters_where_none_are_parted() -> None:
    tasks = [Task(str(i), (Message("user", f"s{i}"),), text) for i, text in enumerate(("老狐狸跟着孩子", "安静的船很小"))]
    graded = [c for c in planted(tasks, 100) if c.kind == "graded"]
    assert any(0 < c.quality < 1 for c in graded)
    assert all(" " not in c.candidate for c in graded)
