"""The mass balance of one step: the theorem's terms against numbers worked out by hand and against small steps, and what the simulation shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import InputError
from etude.experiments.mass_balance import (
    MassBalanceSettings,
    StudySettings,
    draw_counts,
    expected_missed,
    logit_step,
    mass_balance,
    mass_balance_experiment,
    probability_step,
    simulate,
    softmax,
    starting_logits,
    study,
)


def tokens(count: int, *chosen: int) -> np.ndarray:
    return np.isin(np.arange(count), chosen)


def test_terms_worked_out_by_hand() -> None:
    p, right, drawn = np.array([0.4, 0.1, 0.3, 0.2]), tokens(4, 0, 1), tokens(4, 0, 2)
    # S = .4 - .3 = .1 and Q = .5: (1 - .1) .5 .16, (.1 + 1) .5 .09 and .1 (.5 .04 - .5 .01).
    found = mass_balance(p, right, drawn)
    assert (found.drawn_right, found.drawn_wrong, found.coupling) == pytest.approx((0.072, 0.0495, 0.0015))
    assert found.total == pytest.approx(0.123)
    step = logit_step(p, np.array([1.0, 0.0, -1.0, 0.0]))
    assert step == pytest.approx([0.36, -0.01, -0.33, -0.02])
    moved = probability_step(p, step)
    # Token 1 is right and was missed: it shrinks, while the right tokens together gain.
    assert moved[:2] == pytest.approx([0.128, -0.005])
    assert moved[right].sum() == pytest.approx(found.total)


def test_what_was_missed_can_cost_more_than_what_was_drawn_gains() -> None:
    found = mass_balance(np.array([0.1, 0.6, 0.05, 0.25]), tokens(4, 0, 1), tokens(4, 0))
    assert (found.drawn_right, found.drawn_wrong, found.coupling) == pytest.approx((0.0027, 0.0, -0.00625))
    assert found.total == pytest.approx(-0.00355)


@given(
    weights=st.lists(st.floats(0.05, 1.0), min_size=3, max_size=8),
    kinds=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=8, max_size=8),
    right=st.floats(0, 2),
    wrong=st.floats(-2, 0),
)
@settings(deadline=None, max_examples=60)
def test_terms_are_the_change_of_a_small_step(weights: list[float], kinds: list[tuple[bool, bool]], right: float, wrong: float) -> None:
    p = np.array(weights) / sum(weights)
    good, drawn = np.array([a for a, _ in kinds[: len(p)]]), np.array([b for _, b in kinds[: len(p)]])
    found = mass_balance(p, good, drawn, right=right, wrong=wrong)
    rewards = np.where(drawn, np.where(good, right, wrong), 0.0)
    assert found.total == pytest.approx(probability_step(p, logit_step(p, rewards))[good].sum(), abs=1e-12)
    small = 1e-6
    after = softmax(np.log(p) + small * logit_step(p, rewards))
    assert (after[good].sum() - p[good].sum()) / small == pytest.approx(found.total, abs=1e-5)
    # What was drawn never costs; only the coupling can.
    assert min(found.drawn_right, found.drawn_wrong) >= -1e-12


def test_rewards_have_to_have_the_signs_of_the_theorem() -> None:
    with pytest.raises(InputError, match="right is -1"):
        mass_balance(np.array([0.5, 0.5]), tokens(2, 0), tokens(2, 0), right=-1.0)


def test_what_is_missed_fades_with_the_draws_as_expected() -> None:
    p = np.array([0.5, 0.3, 0.2])
    # (.25 .5 + .09 .7 + .04 .8) after one draw.
    assert expected_missed(p, 1) == pytest.approx(0.125 + 0.063 + 0.032)
    random = np.random.default_rng(0)
    seen = np.mean([(p**2)[draw_counts(p, 3, random) == 0].sum() for _ in range(20_000)])
    assert seen == pytest.approx(expected_missed(p, 3), rel=0.02)


def test_draws_follow_the_probabilities() -> None:
    p = np.array([0.5, 0.0, 0.3, 0.2])
    counts = draw_counts(p, 100_000, np.random.default_rng(0))
    assert counts.sum() == 100_000
    assert counts[1] == 0
    assert counts / 100_000 == pytest.approx(p, abs=0.01)


def test_the_state_is_the_papers_at_a_64th() -> None:
    logits, right = starting_logits(MassBalanceSettings())
    assert softmax(logits)[right].sum() == pytest.approx(160 * np.exp(3) / (160 * np.exp(3) + np.exp(5) + 1839))
    with pytest.raises(InputError, match="right_tokens is 1999"):
        starting_logits(MassBalanceSettings(right_tokens=1999))


def test_wide_steps_win_at_equal_updates_and_lose_at_equal_draws() -> None:
    narrow, wide = {"draws": 4}, {"draws": 512}
    by_updates = [mass_balance_experiment(0, s, "100-steps") for s in (narrow, wide)]
    assert by_updates[1]["gain"] > 2 * by_updates[0]["gain"] > 0
    # With few draws some right token is below where it began; with many none is.
    assert by_updates[0]["worst"] < 0 < by_updates[1]["worst"]
    assert by_updates[0]["improved"] < by_updates[1]["improved"] == 1.0
    per_draws = [mass_balance_experiment(0, {**s, "lr_draws": 16}, "10240-rollouts") for s in (narrow, wide)]
    assert per_draws[1]["gain"] < per_draws[0]["gain"]
    assert mass_balance_experiment(0, narrow, "100-steps") == by_updates[0]


def test_with_as_many_draws_as_the_rate_is_for_nothing_is_scaled() -> None:
    plain = simulate(MassBalanceSettings(vocabulary=50, right_tokens=10, draws=16), 20, seed=0)
    assert simulate(MassBalanceSettings(vocabulary=50, right_tokens=10, draws=16, lr_draws=16), 20, seed=0).mass == plain.mass
    # The first step of Adam is the learning rate in the sign of the gradient: four times the draws, twice the rate, twice the change of what both drew.
    assert simulate(MassBalanceSettings(vocabulary=50, right_tokens=10, draws=16, lr_draws=4), 20, seed=0).mass[1] != plain.mass[1]


@pytest.mark.parametrize(
    ("options", "budget", "said"),
    [
        ({"draw": 4}, "10-steps", "Did you mean draws"),
        ({}, "10-tokens", "expected steps .* or rollouts"),
        ({"draws": 64}, "32-rollouts", "no update of 64 draws"),
    ],
)
def test_what_cannot_be_run_is_refused(options: dict[str, object], budget: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        mass_balance_experiment(0, options, budget)


def test_the_study_reads_it_both_ways() -> None:
    findings = study(StudySettings(widths=(16, 4), updates=10, total_draws=160, seeds=2))
    assert [row[:2] for row in findings.tables[0].rows] == [["4", "10"], ["16", "10"]]
    assert [row[:2] for row in findings.tables[1].rows] == [["4", "40"], ["16", "10"]]
    by_updates, by_draws = findings.charts.values()
    assert [list(line.x)[-1] for line in by_updates.lines] == [10, 10]
    assert [list(line.x)[-1] for line in by_draws.lines] == [160, 160]
    # At 16 draws, which the rate is for, both readings are the same 10 updates.
    assert findings.values["equal_updates"]["16"] == findings.values["equal_draws"]["16"]
