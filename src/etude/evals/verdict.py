"""From finished runs to a verdict on a claim. Pure: records in, judgement out.

Each comparison is judged by `judge_difference` on seed-wise differences. Where a claim has several effect tests, a test counts as supported only if its p-value
survives Holm's correction over them. The claim is

    void            a precondition failed, or an arm could not spend its budget: whatever was seen says nothing about the claim
    supported       every effect test is supported
    not supported   some effect test is not supported: there is evidence that the effect is absent, or smaller than the margin
    inconclusive    anything else

Ablations are judged alike and reported beside the verdict; they do not enter it. An ablation "confirms" when the whole method does better than itself less the part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from etude.claim import Claim, Comparison, Precondition, Verdict
from etude.errors import InputError
from etude.evals.measures import Record, of_every
from etude.evals.statistics import TestOutcome, holm, judge_difference

LEVEL = 0.95
"""Level of every interval, and of the family of tests of one claim."""
POWER = 0.8
"""Power that the smallest detectable difference, and the seeds that would settle a test, are stated for."""


@dataclass(frozen=True)
class TestResult:
    """One comparison: its values by seed, what follows from them alone, and the verdict after correction over the claim's effect tests.

    control: zeros where the comparison has no control arm.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes called Test... for tests of its own

    comparison: Comparison
    treatment: tuple[float, ...]
    control: tuple[float, ...]
    outcome: TestOutcome
    adjusted_p_value: float
    verdict: Verdict

    @property
    def ablation_says(self) -> str:
        """What an ablation's outcome means for the method's explanation."""
        return {"supported": "confirms", "not supported": "does not confirm"}.get(self.verdict, "inconclusive")


@dataclass(frozen=True)
class PreconditionResult:
    """One precondition: its measure by seed, their mean, and whether that lies within the bounds."""

    precondition: Precondition
    values: tuple[float, ...]
    mean: float
    holds: bool


@dataclass(frozen=True)
class Judgement:
    """What was found. reasons: for a void claim what failed, else the effect tests that keep it from being supported."""

    verdict: Verdict
    tests: tuple[TestResult, ...]
    preconditions: tuple[PreconditionResult, ...]
    reasons: tuple[str, ...]

    @property
    def effects(self) -> tuple[TestResult, ...]:
        return tuple(test for test in self.tests if test.comparison.role == "effect")

    @property
    def ablations(self) -> tuple[TestResult, ...]:
        return tuple(test for test in self.tests if test.comparison.role == "ablation")

    @property
    def p_value(self) -> float | None:
        """The p-value of the whole claim, which holds only if every effect does: the largest among its effect tests. None when nothing was tested."""
        return max((test.outcome.p_value for test in self.effects), default=None)


Records = Mapping[str, Sequence[Record]]
"""The runs of each arm, in the order of the seeds."""


def judge(claim: Claim, records: Records) -> Judgement:
    """The verdict on a claim from the runs of all its arms, paired by position.

    Raises InputError when an arm is missing, arms have different numbers of runs, or something that a test measures was not recorded.
    """
    _require_paired(claim, records)
    preconditions = tuple(_check(condition, records) for condition in claim.preconditions)
    failed = [*_unspent(records), *(_says(result) for result in preconditions if not result.holds)]
    try:
        tests = _judge_tests(claim, records)
    except InputError:
        # Without its phenomenon there may be nothing to measure; then the precondition is what to show.
        if not failed:
            raise
        tests = ()
    if failed:
        return Judgement("void", tests, preconditions, tuple(failed))
    effects = [test for test in tests if test.comparison.role == "effect"]
    found: set[str] = {test.verdict for test in effects}
    verdict: Verdict = "supported" if found == {"supported"} else "not supported" if "not supported" in found else "inconclusive"
    return Judgement(verdict, tests, preconditions, tuple(f"{t.comparison.name}: {t.verdict}" for t in effects if t.verdict != "supported"))


def _judge_tests(claim: Claim, records: Records) -> tuple[TestResult, ...]:
    values: dict[str, tuple[tuple[float, ...], tuple[float, ...], TestOutcome]] = {}
    for test in claim.tests:
        treatment = tuple(of_every(records[test.treatment], test.measure))
        control = tuple(of_every(records[test.control], test.measure)) if test.control is not None else (0.0,) * len(treatment)
        outcome = judge_difference(treatment, control, better=test.better, margin=test.margin, smallest_effect=test.smallest_effect, level=LEVEL, power=POWER)
        values[test.name] = (treatment, control, outcome)
    adjusted = {test.name: values[test.name][2].p_value for test in claim.ablations} | holm({test.name: values[test.name][2].p_value for test in claim.effects})
    return tuple(TestResult(test, *values[test.name], adjusted[test.name], _corrected(values[test.name][2], adjusted[test.name])) for test in claim.tests)


SUPPORTED_BELOW = 1 - LEVEL
"""p-value (two-sided, against the margin) up to which a test is supported."""


def _corrected(outcome: TestOutcome, adjusted: float) -> Verdict:
    """A test that is supported alone but not after correction is inconclusive; correction turns no test into a failed one."""
    return "inconclusive" if outcome.verdict == "supported" and adjusted > SUPPORTED_BELOW else outcome.verdict


def _check(condition: Precondition, records: Records) -> PreconditionResult:
    # A value that is not a number (no attempt fits, say) is within no bounds.
    values = tuple(condition.measure(record) for record in records[condition.arm])
    mean = sum(values) / len(values)
    low, high = condition.at_least, condition.at_most
    return PreconditionResult(condition, values, mean, (low is None or mean >= low) and (high is None or mean <= high))


def _says(result: PreconditionResult) -> str:
    condition = result.precondition
    bounds = [f"{word} {bound:g}" for word, bound in (("at least", condition.at_least), ("at most", condition.at_most)) if bound is not None]
    meaning = f": {condition.otherwise}" if condition.otherwise else ""
    return f"{condition.name}: {condition.measure} of {condition.arm} is {result.mean:.3g}, expected {' and '.join(bounds)}{meaning}"


def _unspent(records: Records) -> list[str]:
    """Arms with a run that ended before its budget was spent: comparing it with the others would not be at equal budget."""
    short = {arm: [r for r in runs if r.budget is not None and r.spent() < r.budget.amount] for arm, runs in records.items()}
    return [f"equal budget: {arm} spent {min(r.spent() for r in runs):g} of {runs[0].budget}" for arm, runs in short.items() if runs]


def _require_paired(claim: Claim, records: Records) -> None:
    missing = [arm.name for arm in claim.arms if arm.name not in records]
    if missing:
        raise InputError(f"there are no runs of {', '.join(missing)}; expected runs of every arm: {', '.join(arm.name for arm in claim.arms)}")
    counts = {arm.name: len(records[arm.name]) for arm in claim.arms}
    if len(set(counts.values())) != 1 or min(counts.values()) < 2:
        raise InputError(f"the arms have {counts} runs; expected the same number of each, at least 2, one a seed")
