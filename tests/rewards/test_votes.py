"""Majority votes as rewards, with numbers worked out by hand."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest

from etude.rewards.votes import (
    Vote,
    answers_of,
    any_answer,
    consistency_weights,
    crowd_vote,
    effective_votes,
    majority,
    self_consistency,
    verified_majority,
    vote_metrics,
    wrong_agreement,
)
from etude.tasks.answers import final_answer
from etude.types import Group, Message, Segment, Task, Trajectory


def attempt(text: str = "", correct: float = math.nan) -> Trajectory:
    rewards = {} if math.isnan(correct) else {"correct": correct}
    return Trajectory(Task("t", (Message("user", "?"),)), [1], [Segment([2], "policy", text)], "eos", rewards=rewards)


def test_the_most_common_answer_is_the_label() -> None:
    vote = majority(["7", "7", "3", "3", "3"], Random(0))
    assert (vote.answer, vote.ratio) == ("3", 0.6)
    assert vote.rewards == [0, 0, 1, 1, 1]


def test_attempts_without_an_answer_never_win() -> None:
    vote = majority([None, None, None, "1"], Random(0))
    assert (vote.answer, vote.ratio, vote.rewards) == ("1", 0.25, [0, 0, 0, 1])
    nobody = majority([None, None], Random(0))
    assert (nobody.answer, nobody.ratio, nobody.rewards) == (None, 0, [0, 0])
    assert any_answer([None], Random(0)).answer is None


def test_a_tie_is_broken_by_the_generator_and_by_nothing_else() -> None:
    answers = ["a", "b", "b", "a", "c"]
    winners = Counter(majority(answers, Random(seed)).answer for seed in range(400))
    assert winners.keys() == {"a", "b"}
    assert min(winners.values()) > 160
    assert majority(answers, Random(3)) == majority(answers, Random(3))


def test_the_control_takes_any_answer_however_many_gave_it() -> None:
    winners = Counter(any_answer(["a"] * 9 + ["b", None], Random(seed)).answer for seed in range(400))
    assert winners.keys() == {"a", "b"}
    assert min(winners.values()) > 160


def test_answers_are_compared_as_normalised_texts() -> None:
    attempts = [attempt(text) for text in ("answer: 1,250.50", "so\nanswer: +1250.5", "answer: X y", "no", "answer: x  Y.")]
    assert answers_of(attempts, final_answer) == ["1250.5", "1250.5", "x y", None, "x y"]


def test_what_the_log_says_of_the_votes() -> None:
    right = Group("right", [attempt(correct=c) for c in (1, 1, 0, 0, 1)])
    wrong = Group("wrong", [attempt(correct=c) for c in (0, 0, 1, 0, 0)])
    votes = [Vote("3", 0.6, (True, True, False, False, True)), Vote("9", 0.8, (True, True, False, True, True))]
    metrics = vote_metrics([right, wrong], votes)
    assert metrics == pytest.approx(
        {
            "votes/majority_ratio": 0.7,
            "votes/undecided": 0.0,
            "votes/label_accuracy": 0.5,
            # All five rewards are as the verdict in the first group, none in the second.
            "votes/reward_accuracy": 0.5,
            "votes/right_share": (0.6 + 0.2) / 2,
        }
    )


def test_without_verdicts_nothing_is_said_of_the_truth() -> None:
    metrics = vote_metrics([Group("t", [attempt(), attempt()])], [Vote(None, 0.0, (False, False))])
    assert metrics == {"votes/majority_ratio": 0.0, "votes/undecided": 1.0}


@pytest.mark.parametrize(
    ("answers", "roots", "votes", "correlation"),
    [
        # Within a tree all agree, between trees nobody does: two trees are two votes.
        ([["a", "a", "b", "b"]], [[0, 0, 1, 1]], 2.0, 1.0),
        # Trees say nothing about answers.
        ([["a", "b", "a", "b"]], [[0, 0, 1, 1]], 4.0, 0.0),
        # Every attempt its own tree.
        ([["a", "a", "b"]], [[0, 1, 2]], 3.0, 0.0),
        # One of two pairs within agrees (1/2), none of four between: correlation 1/2, and 4 / (1 + 1/2) votes.
        ([["a", "a", "b", "c"]], [[0, 0, 1, 1]], 4 / 1.5, 0.5),
        ([["a", "a", "a", "a"]], [[0, 0, 1, 1]], 4.0, 0.0),
        # No answer agrees with none.
        ([[None, None, "b", "c"]], [[0, 0, 1, 1]], 4.0, 0.0),
    ],
)
def test_effective_votes(answers: list[list[str | None]], roots: list[list[int]], votes: float, correlation: float) -> None:
    assert effective_votes(answers, roots) == pytest.approx((votes, correlation))


# Votes of several models

SURE = ["1", "1", "1", "2"]
TORN = ["3", "3", "2", None]
ALSO_TORN = ["3", "3", "4", "5"]


def test_self_consistency_is_the_share_of_the_most_common_answer() -> None:
    assert [self_consistency(row) for row in (SURE, TORN, ["1"], [None, None], [])] == [0.75, 0.5, 1.0, 0.0, 0.0]
    assert consistency_weights([SURE, TORN], power=2) == [0.5625, 0.25]
    assert consistency_weights([SURE, [None]], power=0) == [1, 1]


def test_one_model_that_knows_outvotes_two_that_guess() -> None:
    rows = [SURE, TORN, ALSO_TORN]
    vote = crowd_vote(rows, consistency_weights(rows))
    # 1: 3 x 0.75; 2: 0.75 + 0.5; 3: 4 x 0.5; all weights: 4 x (0.75 + 0.5 + 0.5).
    assert vote.scores == {"1": 2.25, "2": 1.25, "3": 2.0, "4": 0.5, "5": 0.5}
    assert (vote.answer, vote.total) == ("1", 7.0)
    assert vote.consistency == pytest.approx(2.25 / 7)
    assert vote.margin == pytest.approx(0.25 / 7)
    plain = crowd_vote(rows, consistency_weights(rows, power=0))
    assert (plain.answer, plain.scores["3"], plain.total) == ("3", 4, 12)


def test_of_equal_scores_more_attempts_win_and_then_the_first() -> None:
    assert crowd_vote([["a"], ["b", "b"]], [1.0, 0.5]).answer == "b"
    assert crowd_vote([["a", "b"], ["b", "a"]], [1.0, 1.0]).answer == "a"
    # 0.1 + 0.2 and 0.3 differ in the last digit only.
    assert crowd_vote([["a"], ["b"], ["b"], ["a", "a"]], [0.3, 0.1, 0.2, 0.0]).answer == "a"


@pytest.mark.parametrize("rows", [[[None, None], [None]], [[], []], []])
def test_where_nobody_answers_nobody_wins(rows: list[list[str | None]]) -> None:
    vote = crowd_vote(rows, consistency_weights(rows))
    assert (vote.answer, vote.consistency, vote.margin) == (None, 0, 0)


def test_one_answer_by_everybody_leads_by_everything() -> None:
    vote = crowd_vote([["7", "7"], ["7", "7"]], [1.0, 1.0])
    assert (vote.answer, vote.consistency, vote.margin) == ("7", 1.0, 1.0)


def test_agreement_on_mistakes_counts_pairs_of_wrong_attempts_of_two_models() -> None:
    answers = [["1", "2", "2"], ["2", "3", None], ["1", "3", "3"]]
    right = [[True, False, False], [False, False, False], [True, False, False]]
    # Wrong: 2 2 | 2 3 | 3 3. Pairs 4 + 4 + 4; alike 2 (the twos) + 0 + 2 (the threes).
    assert wrong_agreement(answers, right) == (4, 12)
    assert wrong_agreement([["1"], ["1"]], [[True], [True]]) == (0, 0)


@pytest.mark.parametrize(
    ("answers", "verdicts", "winner"),
    [
        # a: 3 (2+0)/(3+4) = 0.857. b: 1 (2+1)/(1+4) = 0.6: one that is stood by does not beat three that are not.
        ("aaab", (0, 0, 0, 1), "a"),
        # b: 2 (2+2)/(2+4) = 1.333.
        ("aaabb", (0, 0, 0, 1, 1), "b"),
        # a: 2 (2+1)/(2+4) = 1. b: 2 (2+1)/(2+4) = 1: the first.
        ("abba", (1, 0, 1, 0), "a"),
        ("baab", (1, 0, 1, 0), "b"),
        # Without any verdict, or with all, the majority.
        ("abb", (0, 0, 0), "b"),
        ("abb", (1, 1, 1), "b"),
    ],
)
def test_votes_that_their_authors_stand_by_count_for_more(answers: str, verdicts: tuple[int, ...], winner: str) -> None:
    vote = verified_majority(list(answers), [bool(v) for v in verdicts])
    assert vote.answer == winner
    assert vote.winners == tuple(a == winner for a in answers)


def test_a_stronger_prior_trusts_verdicts_less_and_nobody_elects_nothing() -> None:
    # b: 2 (20+2)/(2+40) = 1.048; a: 3 (20+0)/(3+40) = 1.395.
    assert verified_majority(list("aaabb"), [False, False, False, True, True], strength=20).answer == "a"
    assert verified_majority([None, "a"], [True, False]).answer == "a"
    assert verified_majority([None], [True]) == Vote(None, 0.0, (False,))
