"""RAFT: imitate the best of your own attempts (Dong et al., arXiv:2304.06767; rejection-sampling fine-tuning).

Sample several answers, keep those that are right, and do a supervised step on them. No advantages, no ratios: wrong answers teach nothing, and a task that is always
solved goes on being imitated. `keep_per_task` bounds how many answers of one task are imitated, so that easy tasks do not crowd out the rest; among equally good ones
the earlier sample is kept, and repeated answers count once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from etude.claim import ON_TINY, Arm, Claim, Comparison, room_to_learn
from etude.config import AtLeastOne, PolicyOptimizationConfig
from etude.evals.measures import AtBudget, gain
from etude.loop import PolicyOptimization
from etude.method import register
from etude.objectives import Aggregation, Objective, SupervisedObjective
from etude.types import Group, Metrics


@dataclass
class RAFTConfig(PolicyOptimizationConfig):
    """Options of RAFT."""

    keep_above: float = 0.5
    """Imitate attempts with a reward above this."""
    keep_per_task: AtLeastOne = 4
    """Attempts of one task to imitate at most."""
    keep_distinct: bool = True
    """Count answers that are the same text once."""
    aggregation: Aggregation = "token_mean"
    """How per-token losses become one number."""


@register(
    slug="raft",
    name="RAFT",
    family="baselines",
    paper="2304.06767",
    title="RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment",
    summary="supervised steps on the attempts that were right",
    config=RAFTConfig,
    claim=Claim(
        statement="Fine-tuning on one's own best samples, again and again, raises the reward steadily without reinforcement learning.",
        expectation="Imitating its right attempts lifts held-out pass@1 by more than 10 points.",
        arms=(
            Arm("raft"),
            Arm("without threshold", "raft", {"keep_above": -1.0}),
        ),
        common=ON_TINY,
        budget="150k-tokens",
        tests=(
            Comparison("gain over the start", "raft", None, gain("eval/pass@1"), margin=0.1),
            Comparison("the threshold", "raft", "without threshold", AtBudget("eval/pass@1"), role="ablation"),
        ),
        preconditions=(room_to_learn("raft"),),
    ),
)
class RAFT(PolicyOptimization):
    """Differs from GRPO in everything after the rewards: selection instead of credit."""

    config: RAFTConfig

    def select(self, groups: list[Group]) -> list[Group]:
        return [self.kept(group) for group in groups]

    def kept(self, group: Group) -> Group:
        """The best attempts of a group."""
        good = [t for t in group.trajectories if not math.isnan(t.reward) and t.reward > self.config.keep_above]
        good.sort(key=lambda t: -t.reward)
        if self.config.keep_distinct:
            good = list({tuple(t.tokens): t for t in reversed(good)}.values())[::-1]
        return Group(group.key, good[: self.config.keep_per_task], group.tags)

    def credit(self, groups: Sequence[Group]) -> Metrics:
        for group in groups:
            for trajectory in group.trajectories:
                trajectory.set_advantage(1.0)
        return {"signal/kept": float(sum(map(len, groups))), "signal/tasks_kept": float(sum(1 for g in groups if len(g)))}

    def objective(self) -> Objective:
        return SupervisedObjective(aggregation=self.config.aggregation)
