"""What a method claims, and how it is checked: declared on the method's card, run by `etude reproduce`.

A claim names the paper's statement, the arms that are run at equal budget over the same seeds, and the comparisons of them that have to come out. How the verdict
follows is in `etude.evals.verdict`. Nothing here computes or imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from etude.errors import InputError

if TYPE_CHECKING:
    from etude.evals.measures import Measure

Verdict = Literal["supported", "not supported", "inconclusive", "void"]
"""What can be found about a claim; see `etude.evals.verdict`."""
VERDICTS: tuple[Verdict, ...] = ("supported", "not supported", "inconclusive", "void")
TUNING_SEEDS = range(0, 100)
"""Seeds for trying things out: whatever a claim's settings were chosen on."""
FIRST_REPORTED_SEED = 1000
"""Seeds from here on are only for reporting: nothing may be chosen by what they gave."""


def reported_seeds(count: int) -> tuple[int, ...]:
    """The first `count` seeds that results are reported on."""
    return tuple(range(FIRST_REPORTED_SEED, FIRST_REPORTED_SEED + count))


ON_TINY: Mapping[str, Any] = {
    "model": "tiny",
    "tasks": "arithmetic",
    "eval_tasks": 128,
    "eval_samples": 8,
    "eval_kl": False,
    "evaluate_every": 10,
    "keep_last": 1,
    "save_trajectories": 0,
    "threads": 1,
}
"""Common settings of claims on the embedded model: the same task set and measurement for all, one thread a run."""


@dataclass(frozen=True)
class Arm:
    """One contestant: a method (default: the one called like the arm) with settings over the common ones, as `etude.train` takes them."""

    name: str
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.method:
            object.__setattr__(self, "method", self.name)


@dataclass(frozen=True)
class Comparison:
    """One measure of two arms, seed by seed.

    treatment, control: names of arms; without a control the treatment's measure itself is judged, against 0.
    better: the direction in which the treatment should differ, and margin by more than how much (in the measure's unit; below 0 it asks for "not worse by more
    than"). smallest_effect: the smallest difference worth having, by default the margin: where the interval ends below it, the test is not supported.
    role: an `effect` has to come out for the claim to be supported. An `ablation` compares the method with itself less what should cause the effect; it is
    reported beside the verdict and does not enter it.
    """

    name: str
    treatment: str
    control: str | None
    measure: Measure
    better: Literal["higher", "lower"] = "higher"
    margin: float = 0.0
    smallest_effect: float | None = None
    role: Literal["effect", "ablation"] = "effect"


@dataclass(frozen=True)
class Precondition:
    """Something that has to hold for the comparison to mean anything. It is judged on the mean over seeds; where it fails the claim is void.

    at_least, at_most: bounds, both included, of which one or both are given. otherwise: what it means when it fails.
    """

    name: str
    arm: str
    measure: Measure
    at_least: float | None = None
    at_most: float | None = None
    otherwise: str = ""


@dataclass(frozen=True)
class Claim:
    """A paper's effect at a size that two CPU cores can check.

    statement: what the paper says. expectation: what would have to be seen here, in one sentence that could turn out false.
    arms: contestants; common: settings that they share (tasks, model, ...); budget: what each arm of each seed may spend.
    tests: comparisons, at least one of them an effect. preconditions: what has to hold first; see `Precondition`.
    tried: what was tuned, and how, on seeds of TUNING_SEEDS. seeds: those that are reported; from FIRST_REPORTED_SEED.
    experiment: `module:function` for what no training run shows (a simulation, a search, an audit): called as function(seed, settings, budget) -> dict of
    floats, for each arm and seed in a process of its own. Measures then read these results by name. seeds_together: so many seeds of an arm share a process, one after
    the other, where an experiment takes no longer than starting one; each is called with its own seed all the same.
    quick, quick_budget: settings over the common ones, and a budget, that make an arm take a second or so, for checking the machinery. Options of the common
    loop are made small anyway.
    plot: the metric that is drawn; by default the first that the first test reads.
    """

    statement: str
    expectation: str
    arms: tuple[Arm, ...]
    budget: str
    tests: tuple[Comparison, ...]
    common: Mapping[str, Any] = field(default_factory=dict)
    preconditions: tuple[Precondition, ...] = ()
    tried: str = ""
    seeds: tuple[int, ...] = reported_seeds(5)
    experiment: str | None = None
    seeds_together: int = 1
    quick: Mapping[str, Any] = field(default_factory=dict)
    quick_budget: str = "2-steps"
    plot: str | None = None

    def __post_init__(self) -> None:
        if self.seeds_together < 1 or (self.seeds_together > 1 and self.experiment is None):
            raise InputError(f"seeds_together is {self.seeds_together}; expected 1, or more for a claim whose arms are calls of an experiment")
        names = [arm.name for arm in self.arms]
        where = f"the claim {self.expectation!r}"
        _require_distinct(names, f"{where}: arms")
        _require_distinct([*(t.name for t in self.tests), *(p.name for p in self.preconditions)], f"{where}: tests and preconditions")
        if not any(test.role == "effect" for test in self.tests):
            raise InputError(f"{where} has no test with role 'effect'; expected at least one comparison that has to come out")
        for name in [t.treatment for t in self.tests] + [t.control for t in self.tests if t.control] + [p.arm for p in self.preconditions]:
            if name not in names:
                raise InputError(f"{where} speaks of an arm {name!r}; its arms are {', '.join(names)}")
        for condition in self.preconditions:
            if condition.at_least is None and condition.at_most is None:
                raise InputError(f"{where}: the precondition {condition.name!r} has no bound; expected at_least or at_most")
        if len(set(self.seeds)) < 2 or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < FIRST_REPORTED_SEED:
            raise InputError(f"{where} has the seeds {self.seeds}; expected two or more different ones, from {FIRST_REPORTED_SEED}: lower ones are for tuning")

    def arm(self, name: str) -> Arm:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def effects(self) -> tuple[Comparison, ...]:
        return tuple(test for test in self.tests if test.role == "effect")

    @property
    def ablations(self) -> tuple[Comparison, ...]:
        return tuple(test for test in self.tests if test.role == "ablation")

    def design(self) -> dict[str, Any]:
        """What is run and how it is judged, as plain JSON values: two claims with the same design need the same runs and the same verdict."""
        return {
            "arms": {arm.name: {"method": arm.method, "settings": dict(arm.settings)} for arm in self.arms},
            "common": dict(self.common),
            "budget": self.budget,
            "experiment": self.experiment,
            "tests": [
                {
                    "name": t.name,
                    "treatment": t.treatment,
                    "control": t.control,
                    "measure": t.measure.to_plain(),
                    "better": t.better,
                    "margin": t.margin,
                    "smallest_effect": t.smallest_effect,
                    "role": t.role,
                }
                for t in self.tests
            ],
            "preconditions": [
                {"name": p.name, "arm": p.arm, "measure": p.measure.to_plain(), "at_least": p.at_least, "at_most": p.at_most} for p in self.preconditions
            ],
        }


def _require_distinct(names: list[str], what: str) -> None:
    if not names or len(set(names)) != len(names) or not all(names):
        raise InputError(f"{what} are called {', '.join(map(repr, names)) or 'nothing'}; expected at least one, each with a name of its own")


def room_to_learn(arm: str) -> Precondition:
    """That the model as it came solves some held-out tasks and not all: otherwise there is nothing to learn from, or nothing left to learn."""
    from etude.evals.measures import First

    return Precondition(
        "room to learn", arm, First("eval/pass@1"), at_least=0.1, at_most=0.7, otherwise="the model solves almost nothing, or almost everything"
    )
