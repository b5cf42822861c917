"""Verdicts from made-up runs: what each one takes, and how often chance gets one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from etude.claim import Arm, Claim, Comparison, Precondition
from etude.errors import InputError
from etude.evals.measures import Final, Record
from etude.evals.verdict import judge
from etude.ledger import Budget

EFFECT = Comparison("effect", "new", "old", Final("score"))


def claim(*tests: Comparison, preconditions: tuple[Precondition, ...] = ()) -> Claim:
    arms = (Arm("new"), Arm("old"), Arm("less"))
    return Claim("It is better.", "The score is higher.", arms, "10-steps", tests or (EFFECT,), preconditions=preconditions)


def records(steps: int = 10, **arms: Sequence[float] | Mapping[str, Sequence[float]]) -> dict[str, list[Record]]:
    """Runs of the arms `new`, `old` and `less` with these final values by seed; `old` and `less` are 0 unless given."""
    count = len(next(iter(arms.values()))) if not isinstance(next(iter(arms.values())), Mapping) else 5
    given: dict[str, Any] = {"new": [0.0] * count, "old": [0.0] * count, "less": [0.0] * count, **arms}
    return {arm: [_record(arm, i, values, steps) for i in range(count)] for arm, values in given.items()}


def _record(arm: str, i: int, values: Any, steps: int) -> Record:
    metrics = {name: column[i] for name, column in values.items()} if isinstance(values, Mapping) else {"score": values[i]}
    return Record([{"step": steps, **metrics, "ledger": {"steps": steps}}], Budget.parse("10-steps"), name=f"{arm}, run {i}")


CLEAR, NOISE = [0.9, 1.0, 1.1, 1.0, 1.0], [2.0, -2.0, 1.0, -1.0, 0.5]


def test_a_clear_difference_is_supported() -> None:
    found = judge(claim(), records(new=CLEAR))
    (test,) = found.tests
    # Mean 1, standard deviation sqrt(0.02 / 4), standard error that over sqrt(5).
    half = stats.t.ppf(0.975, 4) * np.sqrt(0.02 / 4 / 5)
    assert (found.verdict, found.reasons) == ("supported", ())
    assert (test.outcome.difference.low, test.outcome.difference.high) == pytest.approx((1 - half, 1 + half))
    assert found.p_value == pytest.approx(2 * stats.t.sf(1 / np.sqrt(0.02 / 20), 4))
    assert (test.treatment, test.control) == (tuple(CLEAR), (0.0,) * 5)


def test_the_wrong_side_is_evidence_against() -> None:
    found = judge(claim(), records(old=CLEAR))
    assert (found.verdict, found.reasons) == ("not supported", ("effect: not supported",))
    assert judge(claim(replace(EFFECT, better="lower")), records(old=CLEAR)).verdict == "supported"


def test_noise_is_inconclusive_and_says_how_many_seeds() -> None:
    found = judge(claim(), records(new=NOISE))
    assert found.verdict == "inconclusive"
    assert (found.tests[0].outcome.seeds_to_settle or 0) > 5


def test_a_margin_asks_for_more_or_for_not_much_worse() -> None:
    assert judge(claim(replace(EFFECT, margin=0.8)), records(new=CLEAR)).verdict == "supported"
    assert judge(claim(replace(EFFECT, margin=0.95)), records(new=CLEAR)).verdict == "inconclusive"
    assert judge(claim(replace(EFFECT, margin=1.2)), records(new=CLEAR)).verdict == "not supported"
    assert judge(claim(replace(EFFECT, margin=-1.2)), records(old=CLEAR)).verdict == "supported"


def test_without_a_control_the_measure_itself_is_judged() -> None:
    alone = replace(EFFECT, control=None, margin=0.5)
    assert judge(claim(alone), records(new=CLEAR, old=[5.0] * 5)).verdict == "supported"


def test_a_failed_precondition_makes_it_void_and_says_which() -> None:
    grows = Precondition("there is something to gain", "old", Final("score"), at_most=0.5, otherwise="nothing is left to gain")
    found = judge(claim(preconditions=(grows,)), records(new=[2.0] * 5, old=CLEAR))
    assert found.verdict == "void"
    assert found.reasons == ("there is something to gain: final score of old is 1, expected at most 0.5: nothing is left to gain",)
    assert found.preconditions[0].values == tuple(CLEAR)
    assert judge(claim(preconditions=(grows,)), records(new=CLEAR)).verdict == "supported"


def test_a_precondition_that_cannot_be_measured_fails() -> None:
    undefined = Precondition("it occurs", "new", Final("score") / 0.0, at_most=1.0)
    found = judge(claim(preconditions=(undefined,)), records(new=CLEAR))
    assert (found.verdict, found.preconditions[0].holds) == ("void", False)
    with pytest.raises(InputError, match="never logged"):
        judge(claim(preconditions=(replace(undefined, measure=Final("never logged")),)), records(new=CLEAR))


def test_an_arm_that_did_not_spend_its_budget_makes_it_void() -> None:
    runs = records(new=CLEAR)
    runs["old"] = records(steps=7, old=[0.0] * 5)["old"]
    found = judge(claim(), runs)
    assert (found.verdict, found.reasons) == ("void", ("equal budget: old spent 7 of 10-steps",))


def test_a_void_claim_may_have_nothing_to_measure() -> None:
    never = Precondition("it occurs", "new", Final("score"), at_least=10.0)
    missing = replace(EFFECT, measure=Final("never logged"))
    assert judge(claim(missing, preconditions=(never,)), records(new=CLEAR)).tests == ()
    with pytest.raises(InputError, match="never logged"):
        judge(claim(missing), records(new=CLEAR))


def test_several_effects_are_corrected_and_all_have_to_come_out() -> None:
    # Alone each has p = 0.03: the interval just excludes 0. Together the smaller one would have to stay below 0.025.
    t = stats.t.isf(0.015, 4)
    shape = np.array([-1.0, -1.0, 0.0, 1.0, 1.0])
    values = (shape / (shape.std(ddof=1) / np.sqrt(5)) + t).tolist()
    assert judge(claim(), records(new=values)).verdict == "supported"
    runs = records(new={"a": values, "b": values}, old={"a": [0.0] * 5, "b": [0.0] * 5}, less={"a": [0.0] * 5})
    two = claim(replace(EFFECT, name="a", measure=Final("a")), replace(EFFECT, name="b", measure=Final("b")))
    found = judge(two, runs)
    assert [test.outcome.verdict for test in found.tests] == ["supported", "supported"]
    assert [test.adjusted_p_value for test in found.tests] == pytest.approx([0.06, 0.06])
    assert found.verdict == "inconclusive"
    assert found.p_value == pytest.approx(0.03)
    runs = records(new={"a": CLEAR, "b": CLEAR}, old={"a": [0.0] * 5, "b": [2.0] * 5})
    assert judge(two, {**runs, "less": runs["old"]}).verdict == "not supported"


def test_ablations_stand_beside_the_verdict() -> None:
    ablation = Comparison("the part", "new", "less", Final("score"), role="ablation")
    found = judge(claim(EFFECT, ablation), records(new=CLEAR, less=[2.0] * 5))
    assert (found.verdict, found.ablations[0].ablation_says) == ("supported", "does not confirm")
    assert judge(claim(EFFECT, ablation), records(new=CLEAR)).ablations[0].ablation_says == "confirms"
    # An ablation takes no part in the correction.
    assert found.effects[0].adjusted_p_value == found.effects[0].outcome.p_value


def test_arms_have_to_be_there_in_equal_numbers() -> None:
    runs = records(new=CLEAR)
    with pytest.raises(InputError, match="no runs of less"):
        judge(claim(), {"new": runs["new"], "old": runs["old"]})
    with pytest.raises(InputError, match="same number"):
        judge(claim(), {**runs, "old": runs["old"][:4]})


def _share_supported(shift: float, repeats: int) -> float:
    """How often the claim is supported when every value is normal noise of variance 1 and the treatment is shifted."""
    generator = np.random.default_rng(4)
    noise = generator.normal(0, 1, (repeats, 2, 5))
    return sum(judge(claim(), records(new=(new + shift).tolist(), old=old.tolist())).verdict == "supported" for new, old in noise) / repeats


def test_a_method_against_itself_is_supported_at_most_5_percent_of_the_time() -> None:
    # 2.5 % is expected, and 5 % is more than three standard errors above that.
    assert _share_supported(0.0, 400) <= 0.05


def test_a_planted_effect_is_found() -> None:
    # Differences have standard deviation sqrt(2); a shift of 5 is 3.5 of them, for which five seeds suffice almost always.
    assert _share_supported(5.0, 100) >= 0.95


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tests": (replace(EFFECT, role="ablation"),)}, "no test with role 'effect'"),
        ({"tests": (replace(EFFECT, control="older"),)}, "an arm 'older'; its arms are new, old, less"),
        ({"tests": (EFFECT, EFFECT)}, "a name of its own"),
        ({"arms": (Arm("new"), Arm("old"), Arm("old"))}, "a name of its own"),
        ({"seeds": (0, 1)}, "from 1000: lower ones are for tuning"),
        ({"seeds": (1000,)}, "two or more"),
        ({"preconditions": (Precondition("p", "new", Final("score")),)}, "has no bound"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(claim(), **change)
