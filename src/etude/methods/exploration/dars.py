"""DARS: try hard tasks more often (Yang et al., arXiv:2508.13755).

Under GRPO a task's group weighs by the sum of its |advantages|, which is largest for tasks that are solved half of the time and fades for hard ones: 2 N u (1 - u) at
accuracy u. So the tasks that the policy can least do teach it least, and the number of tasks that it can do at all hardly grows. DARS first tries every task N times,
then adds attempts to those below one half: as many as bring the task's weight up to that of a half-solved one (equal treatment), or beyond it the harder the task is
(hardness weighted).

Differs from GRPO in four places: the second round; groups without both right and wrong attempts are dropped, after merging; the advantage is not divided by the
deviation; token losses are summed and divided by a constant, so that a larger group does weigh more.

`quota` easiness-weighted is the mirror image, for comparison: it adds attempts to tasks that are nearly always solved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from etude.advantages import assign_by_group, centred, group_normalised
from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition, reported_seeds, room_to_learn
from etude.config import AtLeastOne, LearnerConfig, Share
from etude.errors import InputError
from etude.evals.measures import AtBudget, First
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.objectives import Aggregation, Objective, PolicyObjective
from etude.rollouts import adaptive_rollouts, is_mixed
from etude.rollouts.adaptive import ROUND
from etude.rollouts.allocation import QUOTAS, capped_quotas
from etude.types import Group, Metrics, Task, mean


@dataclass
class DARSConfig(GRPOConfig):
    """Options of DARS."""

    group_size: AtLeastOne = 8
    """Rollouts per task in the first round."""
    aggregation: Aggregation = "constant"
    """How per-token losses become one number."""
    quota: Literal["equal-treatment", "hardness-weighted", "easiness-weighted", "none"] = "hardness-weighted"
    """How many attempts are added to tasks solved less than half of the time (`easiness-weighted`: more)."""
    most_rollouts: AtLeastOne = 32
    """Rollouts of one task at most, both rounds together."""
    unsolved_share: Share = 1.0
    """Largest share of a step's rollouts that may be added to tasks whose first round solved nothing (1: no limit)."""
    filter_groups: bool = True
    """Leave out groups without both right and wrong attempts."""
    upper_threshold: Share = 1.0
    """With that filter: also leave out groups with at least this share of right attempts."""
    scale_by_deviation: bool = False
    """Divide advantages by the group's deviation; quotas are then those for that."""
    learner: LearnerConfig = field(default_factory=lambda: LearnerConfig(mini_batches=2))


def accuracy(group: Group) -> float:
    """The mean of the verifier's verdicts, NaN where it gave none."""
    return mean([t.correct for t in group.trajectories if t.correct == t.correct])


@register(
    slug="dars",
    name="DARS",
    family="exploration",
    paper="2508.13755",
    title="Depth-Breadth Synergy in RLVR: Unlocking LLM Reasoning Gains with Adaptive Exploration",
    summary="more attempts at hard tasks, so that they weigh as much as half-solved ones",
    rollouts="adaptive",
    config=DARSConfig,
    claim=Claim(
        statement="Adding attempts to hard tasks, the more the harder, raises pass@k at no cost in pass@1, where more attempts at every task only learn faster.",
        expectation="On a task set of which a quarter or more is never solved in eight attempts, with the same number of generated tokens, DARS ends with a higher held-out "
        "pass@8 than GRPO with groups of 8, and with a pass@1 that is at most 3 points lower; with the mirrored quota the gain in pass@8 is gone.",
        arms=(
            Arm("dars"),
            Arm("grpo"),
            Arm("easy tasks first", "dars", {"quota": "easiness-weighted"}),
        ),
        common={**ON_TINY, "tasks": "lists:steps=3", "group_size": 8, "evaluate_every": 0, "eval_samples": 32},
        budget="100k-tokens",
        seeds=reported_seeds(10),
        quick={"eval_samples": 8},
        tests=(
            Comparison("pass@8", "dars", "grpo", AtBudget("eval/pass@8")),
            Comparison("pass@1 is kept", "dars", "grpo", AtBudget("eval/pass@1"), margin=-0.03),
            Comparison("more attempts at hard tasks, not easy ones", "dars", "easy tasks first", AtBudget("eval/pass@8"), role="ablation"),
        ),
        preconditions=(
            Precondition("many tasks are hard", "dars", First("signal/unsolved"), at_least=0.2, otherwise="there are few tasks that the second round is for"),
            room_to_learn("grpo"),
        ),
        tried="The task set: tasks of arithmetic with four terms are almost never solved (1 %), and those of lists with three steps by 22 %, 38 % "
        "of them never in eight attempts. Seed 0 with 60k tokens, 128 held-out tasks of 8 samples: GRPO ended at a pass@1 of 40.3 % and a pass@8 of "
        "59.4 %, DARS at 37.9 % and 63.3 %, easy tasks first at 40.1 % and 56.2 %, from 23.8 % and 61.7 % at the start. The learning rate was not "
        "tuned. Five reported seeds left both tests open (pass@8 +3.1 points [-0.7, 6.9], pass@1 -2.0 [-4.9, 0.8]); ten were asked for then.",
    ),
)
class DARS(GRPO):
    """Differs from GRPO in the second round, the filter, the advantage and the aggregation."""

    config: DARSConfig
    overlaps: ClassVar[bool] = True
    advantage: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(centred)

    first_round: list[float] | None = None
    """Each task's accuracy after the first round of the step."""
    rounds: Metrics
    """What the step's second round did."""

    def setup(self) -> None:
        config = self.config
        if config.most_rollouts < config.group_size:
            raise InputError(
                f"--most-rollouts is {config.most_rollouts}, below --group-size {config.group_size}, the first round alone; expected at least as many"
            )
        super().setup()
        self.rounds = {}

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        self.first_round = None
        groups = adaptive_rollouts(
            tasks, first=self.config.group_size, attempt=self.attempt, stream=self.stream, judge=self.judge, allocate=self.further_attempts
        )
        self.rounds = second_round_metrics(groups, self.first_round or [])
        return groups

    def further_attempts(self, groups: Sequence[Group]) -> list[int] | None:
        """The second round's quotas; None after it."""
        config = self.config
        if self.first_round is not None:
            return None
        self.first_round = [accuracy(group) for group in groups]
        if config.quota == "none":
            return None
        quotas = [QUOTAS[config.quota](u, config.group_size, config.most_rollouts, config.scale_by_deviation) for u in self.first_round]
        unsolved = [u == 0 for u in self.first_round]
        return capped_quotas(quotas, unsolved, drawn=sum(map(len, groups)), share=config.unsolved_share)

    def select(self, groups: list[Group]) -> list[Group]:
        if not self.config.filter_groups:
            return groups
        return [g for g in groups if is_mixed(g) and (self.config.upper_threshold == 1 or accuracy(g) < self.config.upper_threshold)]

    def credit(self, groups: Sequence[Group]) -> Metrics:
        metrics = assign_by_group(groups, partial(group_normalised, ddof=0) if self.config.scale_by_deviation else centred)
        return metrics | self.rounds | {"signal/groups_trained": float(len(groups))}

    def objective(self) -> Objective:
        objective = super().objective()
        assert isinstance(objective, PolicyObjective)
        if objective.aggregation == "constant":
            # What an optimiser step would have without a second round and at full length: a constant, so a group that grew weighs more.
            first = self.config.tasks_per_step * self.config.group_size
            objective.normal_length *= max(1, first // self.config.learner.mini_batches)
        return objective


def second_round_metrics(groups: Sequence[Group], first: Sequence[float]) -> Metrics:
    """How many attempts were added a task, the share of tasks that the first round never solved, and how many of those the second one solved (`saved`)."""
    added = [sum(t.tags.get(ROUND, 0) > 0 for t in group.trajectories) for group in groups]
    unsolved = [u == 0 for u in first]
    saved = sum(never and accuracy(group) > 0 for group, never in zip(groups, unsolved, strict=True))
    return {
        "rollout/added": mean([float(a) for a in added]),
        "rollout/largest_group": float(max(map(len, groups), default=0)),
        "signal/unsolved": mean([float(u) for u in unsolved]),
        "signal/saved": float(saved),
    }
