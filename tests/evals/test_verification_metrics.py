"""How well solutions are judged, with numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from etude.evals.verification import confusion, mentions, verification_metrics, weighted_maj
from etude.tasks.verification import Scale

SCALE = Scale()
TRUTHS = [1, 1, 1, 1, -0.5, -0.5, -1, -0.5]
RATINGS = [1, 1, -0.5, None, -0.5, 1, -0.5, math.nan]


def test_the_table_of_scores_and_ratings() -> None:
    assert confusion(TRUTHS, RATINGS, SCALE) == [[2, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0]]


def test_what_ratings_are_worth() -> None:
    metrics = verification_metrics(TRUTHS, RATINGS, SCALE, "v/")
    assert metrics == pytest.approx(
        {
            "v/accuracy": 3 / 8,
            "v/constant": 4 / 8,
            "v/unrated": 2 / 8,
            "v/false_reject": 1 / 4,
            "v/false_accept": 1 / 4,
            # 2 of 4 right ones are called right, 2 of the 4 others one of the lower cases.
            "v/balanced": 1 / 2,
            "v/truth_right": 4 / 8,
            "v/truth_wrong": 3 / 8,
            "v/truth_unanswered": 1 / 8,
            "v/says_right": 3 / 8,
            "v/says_wrong": 3 / 8,
            "v/says_unanswered": 0,
        }
    )


@pytest.mark.parametrize("verdict", [1.0, -0.5, -1.0])
def test_a_constant_verdict_is_worth_a_half_whatever_the_solutions(verdict: float) -> None:
    metrics = verification_metrics([1] * 9 + [-0.5], [verdict] * 10, SCALE, "")
    assert metrics["balanced"] == 0.5
    assert metrics["constant"] == 0.9


def test_what_cannot_be_said_is_left_out() -> None:
    assert verification_metrics([], [], SCALE, "") == {}
    assert not {"balanced", "false_accept"} & verification_metrics([1, 1], [1, -0.5], SCALE, "").keys()


def test_the_vote_that_verdicts_weigh() -> None:
    # Task 1: three votes for a, none of which is stood by, score 3 (2+0)/(3+4) = 0.857; two for b, both stood by, 2 (2+2)/(2+4) = 1.333. Task 2: nobody answers.
    metrics = weighted_maj([["a", "a", "b", "b", "a"], [None] * 5], [[False, False, True, True, False], [True] * 5], [[0, 0, 1, 1, 0], [0] * 5])
    assert metrics["eval/weighted_maj@5"] == 0.5
    assert 0 <= metrics["eval/weighted_maj@5_low"] < 0.5 < metrics["eval/weighted_maj@5_high"] <= 1
    assert weighted_maj([[None]], [[True]], [[0.0]]) == {}
    assert weighted_maj([[]], [[]], [[]]) == {}


def test_words_are_whole_and_case_does_not_matter() -> None:
    texts = ["Let me Check.", "checkers", "we double-check", "nothing"]
    assert mentions(texts, ["check"]) == 0.5
    assert mentions(texts, ["let me check", "nothing"]) == 0.5
    assert mentions(texts, []) == 0
    assert math.isnan(mentions([], ["a"]))
