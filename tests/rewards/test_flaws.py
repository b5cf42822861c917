"""FAPO's rewards, its theory against group-normalised advantages, and the numbers about a judge."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from etude.advantages import group_normalised
from etude.rewards.flaws import (
    detection,
    flaw_aware,
    flaw_aware_mean,
    flaw_aware_variance,
    harmonic,
    spreads_more,
    stepwise,
    turns_against_flaws,
    verdict_only,
)

COUNTS = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)).filter(lambda n: sum(n) >= 2)
PENALTIES = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0])


def rewards(sound: int, wrong: int, flawed: int, penalty: float) -> torch.Tensor:
    values = [flaw_aware(True, False, penalty=penalty)] * sound + [flaw_aware(False, False, penalty=penalty)] * wrong
    return torch.tensor([*values, *[flaw_aware(True, True, penalty=penalty)] * flawed], dtype=torch.float64)


def test_a_flawed_positive_is_worth_less_than_a_sound_one_and_more_than_a_wrong_one() -> None:
    assert [flaw_aware(True, False), flaw_aware(True, True), flaw_aware(False, False)] == [1.0, 0.0, -1.0]
    assert [flaw_aware(True, True, penalty=p) for p in (0.0, 0.5, 2.0)] == [1.0, 0.5, -1.0]
    assert flaw_aware(False, True) == -1.0, "a flaw costs a wrong attempt nothing"


@pytest.mark.parametrize(
    ("named", "first_wrong", "expected"),
    [
        (None, -1, -1.0),  # cannot be read
        (None, 2, -1.0),
        (0, -1, -1.0),  # flawless, said to be flawed
        (-1, 0, -1.0),  # flawed, said to be flawless
        (-1, -1, 1.0),
        (2, 2, 1.0),
        (3, 2, 0.8),  # one step off, of five
        (0, 4, 0.2),
        (4, 0, 0.2),
    ],
)
def test_the_stepwise_reward_of_five_steps(named: int | None, first_wrong: int, expected: float) -> None:
    assert stepwise(named, first_wrong, 5) == pytest.approx(expected)
    assert verdict_only(named, first_wrong) == (1.0 if expected > 0 else -1.0)


def test_guessing_the_verdict_does_not_pay() -> None:
    # Half of the solutions flawless, the others wrong first at any of 8 steps alike. Always "flawless" earns 0 on average, always "flawed at step 0"
    # (-1 + 1 - mean(0..7) / 8) / 2 = -0.21875, which the verdict alone would call 0 as well.
    truths = [-1] * 8 + list(range(8))
    assert sum(stepwise(-1, t, 8) for t in truths) / 16 == 0.0
    assert sum(stepwise(0, t, 8) for t in truths) / 16 == pytest.approx(-0.21875)
    assert sum(verdict_only(0, t) for t in truths) / 16 == 0.0


def test_mean_and_variance_of_a_group_worked_out_by_hand() -> None:
    # 2 sound, 1 wrong, 1 flawed: rewards 1, 1, -1, 0. Mean 1/4, mean of squares 3/4, variance 11/16.
    assert flaw_aware_mean(0.5, 0.25) == pytest.approx(0.25)
    assert flaw_aware_variance(0.5, 0.25) == pytest.approx(11 / 16)
    # Without the penalty: rewards 1, 1, -1, 1. Mean 1/2, variance 3/4.
    assert flaw_aware_mean(0.5, 0.25, penalty=0.0) == pytest.approx(0.5)
    assert flaw_aware_variance(0.5, 0.25, penalty=0.0) == pytest.approx(0.75)


@given(COUNTS, PENALTIES)
def test_the_theory_agrees_with_the_rewards_of_any_group(counts: tuple[int, int, int], penalty: float) -> None:
    size = sum(counts)
    alpha, beta = counts[0] / size, counts[1] / size
    rewards_G = rewards(*counts, penalty)
    assert float(rewards_G.mean()) == pytest.approx(flaw_aware_mean(alpha, beta, penalty=penalty), abs=1e-9)
    assert float(rewards_G.var(correction=0)) == pytest.approx(flaw_aware_variance(alpha, beta, penalty=penalty), abs=1e-9)


@given(COUNTS, PENALTIES)
def test_flawed_positives_are_pushed_down_from_where_the_theory_says(counts: tuple[int, int, int], penalty: float) -> None:
    sound, wrong, flawed = counts
    assume(flawed > 0)
    advantages_G = group_normalised(rewards(*counts, penalty))
    size = sum(counts)
    turned = turns_against_flaws(sound / size, wrong / size, penalty=penalty)
    assert bool(advantages_G[-1] < -1e-9) == turned
    if wrong:
        assert turned == (sound / wrong > 2 / penalty - 1 + 1e-12)
    # The order is always sound, flawed, wrong.
    if sound and wrong:
        assert float(advantages_G[0]) >= float(advantages_G[-1]) >= float(advantages_G[sound])


@pytest.mark.parametrize(("sound", "wrong", "sign"), [(2, 3, 1), (3, 3, 0), (4, 3, -1)])
def test_with_the_papers_penalty_the_sign_flips_where_sound_attempts_outnumber_wrong_ones(sound: int, wrong: int, sign: int) -> None:
    advantage = float(group_normalised(rewards(sound, wrong, 3, 1.0))[-1])
    assert (advantage > 1e-9) - (advantage < -1e-9) == sign
    # Without the penalty a flawed positive is reinforced in all three groups.
    assert float(group_normalised(rewards(sound, wrong, 3, 0.0))[-1]) > 0


@given(COUNTS, PENALTIES)
def test_positive_advantages_shrink_from_where_the_theory_says(counts: tuple[int, int, int], penalty: float) -> None:
    sound, wrong, flawed = counts
    assume(sound > 0 and wrong > 0 and flawed > 0)
    size = sum(counts)
    wider = float(rewards(*counts, penalty).var(correction=0)) > float(rewards(*counts, 0.0).var(correction=0)) + 1e-9
    assert wider == spreads_more(sound / size, wrong / size, penalty=penalty) == (sound / wrong > 4 / penalty - 1 + 1e-12)


def test_how_well_flaws_were_found() -> None:
    # Truth:  0   2   1  -1  -1  -1   Flagged: first, second (at the wrong step), and the fourth; the third is missed, the last cannot be read.
    found = detection([0, 3, -1, 4, -1, None], [0, 2, 1, -1, -1, -1])
    assert found == pytest.approx(
        {
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "located": 1 / 3,
            "cleared": 1 / 3,
            "process_f1": 1 / 3,
            "unreadable": 1 / 6,
            "says_flawless": 2 / 5,
            "says_first": 1 / 5,
        }
    )


def test_what_has_no_value_is_left_out() -> None:
    assert detection([], []) == {}
    assert "precision" not in detection([-1], [0])
    assert "recall" not in detection([-1], [-1])
    assert harmonic(0.0, 0.0) == 0.0
