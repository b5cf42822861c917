"""Self-knowledge, on cases worked out by hand."""

from __future__ import annotations

import math

import pytest

from etude.evals.self_knowledge import Opinion, alarms, calibration_error, entropy_bits, flip_rate, information_bits, self_knowledge

F, I = "feasible", "infeasible"
OPINIONS = [
    Opinion((F, F, F, F), 1.0),
    Opinion((F, F, F, I), 0.75),
    Opinion((I, I, I, F), 0.25),
    Opinion((F, F, F, I), 0.0),
    Opinion((F, F, I, I), 0.0),
    Opinion((I, I, None, F), 0.5),
]


def test_every_number_of_six_tasks() -> None:
    found = self_knowledge(OPINIONS)
    # Right: the first three. The fourth is overconfident, the fifth has no majority, the sixth refuses what is solved half of the time.
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    # Infeasible is said of the third and the sixth, and is so of the third, fourth and fifth.
    assert found["f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert found["refusal"] == pytest.approx(2 / 6)
    assert found["over_refusal"] == pytest.approx(1 / 3)
    assert found["overconfidence"] == pytest.approx(1 / 3)
    assert found["consistency"] == pytest.approx((1 + 0.75 + 0.75 + 0.75 + 0.5 + 0.5) / 6)
    assert found["invalid"] == pytest.approx(1 / 24)
    assert found["solvable"] == pytest.approx(0.5)
    assert found["solved_if_feasible"] == pytest.approx((1 + 0.75 + 0) / 3)
    assert found["solved_if_infeasible"] == pytest.approx((0.25 + 0.5) / 2)
    # P(feasible) 1, 3/4, 1/4, 3/4, 1/2, 1/3. Only the two of 3/4 share a bin.
    assert found["feasible"] == pytest.approx((1 + 0.75 + 0.25 + 0.75 + 0.5 + 1 / 3) / 6)
    assert found["ece"] == pytest.approx((0 + abs(1.5 - 0.75) + 0 + 0.5 + abs(1 / 3 - 0.5)) / 6)


def test_always_feasible_has_half_accuracy_no_f1_and_nothing_to_say_of_refusals() -> None:
    found = self_knowledge([Opinion((F, F), 1.0), Opinion((F, F), 0.0)])
    assert (found["accuracy"], found["f1"], found["consistency"], found["ece"]) == (0.5, 0.0, 1.0, 0.5)
    assert "solved_if_infeasible" not in found
    assert self_knowledge([]) == {}


def test_without_a_valid_verdict_a_task_is_judged_wrongly_and_not_forecast() -> None:
    found = self_knowledge([Opinion((None, None), 1.0), Opinion((F, None), 1.0)])
    assert (found["accuracy"], found["feasible"], found["ece"], found["invalid"]) == (0.5, 1.0, 0.0, 0.75)


def test_calibration_error_by_bins() -> None:
    # Bin 0.9 to 1: forecasts 0.95 and 1, outcomes 1 and 0: distance of the means 0.475. Bin 0.2 to 0.3: 0.25 and 0.
    assert calibration_error([0.95, 1.0, 0.25], [1.0, 0.0, 0.0]) == pytest.approx((2 * 0.475 + 0.25) / 3)
    # In one bin errors of opposite sign cancel; in bins of their own they do not.
    assert calibration_error([0.41, 0.45], [0.36, 0.5]) == pytest.approx(0.0)
    assert calibration_error([0.41, 0.45], [0.36, 0.5], bins=100) == pytest.approx(0.05)
    assert math.isnan(calibration_error([], []))


def test_entropy_and_information_in_bits() -> None:
    assert entropy_bits([F, I]) == pytest.approx(1.0)
    assert entropy_bits([F, F, F, I]) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    assert entropy_bits([F, F]) == entropy_bits([]) == 0.0
    assert information_bits([(F, F), (I, I)]) == pytest.approx(1.0)
    assert information_bits([(F, F), (F, I), (I, F), (I, I)]) == pytest.approx(0.0)
    # A constant verdict tells nothing of the claim.
    assert information_bits([(F, F), (F, I)]) == pytest.approx(0.0)


def test_verdicts_that_follow_the_order_of_words() -> None:
    first = [Opinion((F, F), 1), Opinion((F, F), 1), Opinion((F, I), 1)]
    second = [Opinion((I, I), 1), Opinion((F, F), 1), Opinion((I, I), 1)]
    assert flip_rate(first, second) == pytest.approx(1 / 2)


def test_alarms() -> None:
    healthy = [(F, F)] * 14 + [(F, I)] * 4 + [(I, I)] * 14 + [(I, F)] * 4
    assert alarms(seeds=healthy, verdicts=[F, I] * 10) == {}
    always = [(F, F)] * 16 + [(I, F)] * 16
    assert set(alarms(seeds=always, verdicts=[F] * 20)) == {"seeds_infeasible", "leaning", "one_verdict"}
    assert set(alarms(seeds=[(F, I)] * 16 + [(I, I)] * 16, verdicts=[I] * 19 + [F])) == {"seeds_feasible", "leaning", "one_verdict"}
    # 1 in 16 has 0.34 bits; too few verified verdicts say nothing.
    assert alarms(seeds=always[:20], verdicts=[F] * 15 + [I]) == {}
