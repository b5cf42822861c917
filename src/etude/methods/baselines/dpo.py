"""DPO, online: prefer your better attempt over your worse one (Rafailov et al., arXiv:2305.18290; online pairs as in arXiv:2402.04792).

Pairs of attempts at the same task, one right and one wrong, take the place of human preferences. The loss raises the likelihood of the better relative to the worse, both
measured against the starting policy, which keeps the policy near it. Pairs are the best and the worst attempt of a group, then the next ones, as long as their
rewards differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from etude.claim import ON_TINY, Arm, Claim, Comparison, room_to_learn
from etude.config import AtLeastOne, PolicyOptimizationConfig
from etude.evals.measures import AtBudget, gain
from etude.loop import PolicyOptimization
from etude.method import register
from etude.objectives import Objective, PreferenceObjective
from etude.types import Group, Metrics, Trajectory, trajectories_of


@dataclass
class DPOConfig(PolicyOptimizationConfig):
    """Options of DPO."""

    beta: Annotated[float, Gt(0)] = 0.1
    """How strongly the policy is held to the starting policy."""
    pairs_per_task: AtLeastOne = 4
    """Pairs of one task at most."""


def preference_pairs(group: Group, limit: int) -> list[list[Trajectory]]:
    """[better, worse] pairs: best with worst, second best with second worst, and so on while their rewards differ.

    An attempt that could not be judged, or of which no token is trained on and so has no likelihood to raise or lower, is in none.
    """
    ranked = sorted((t for t in group.trajectories if t.trained_length and not math.isnan(t.reward)), key=lambda t: -t.reward)
    pairs = [[ranked[i], ranked[-1 - i]] for i in range(min(limit, len(ranked) // 2))]
    return [pair for pair in pairs if pair[0].reward - pair[1].reward > 1e-9]


@register(
    slug="dpo",
    name="DPO",
    family="baselines",
    paper="2305.18290",
    title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    summary="raise the better of two attempts over the worse",
    config=DPOConfig,
    claim=Claim(
        statement="A classification loss on preferences improves a policy without a reward model or reinforcement learning, and beyond fine-tuning on the preferred "
        "answers.",
        expectation="On pairs of its own attempts DPO lifts held-out pass@1 by more than 10 points, and at the end of the budget is above imitation of as many preferred "
        "attempts.",
        arms=(
            Arm("dpo"),
            Arm("preferred attempts only", "raft", {"keep_per_task": 4, "keep_distinct": False}),
        ),
        common=ON_TINY,
        budget="150k-tokens",
        tests=(
            Comparison("gain over the start", "dpo", None, gain("eval/pass@1"), margin=0.1),
            Comparison("over the preferred alone", "dpo", "preferred attempts only", AtBudget("eval/pass@1")),
        ),
        preconditions=(room_to_learn("dpo"),),
    ),
)
class DPO(PolicyOptimization):
    """Differs from GRPO in the objective: pairs instead of advantages."""

    config: DPOConfig
    minimum_group: ClassVar[int] = 2

    def units(self, groups: Sequence[Group]) -> list[list[Trajectory]]:
        return [pair for group in groups for pair in preference_pairs(group, self.config.pairs_per_task)]

    def credit(self, groups: Sequence[Group]) -> Metrics:
        untrained = sum(not t.trained_length for t in trajectories_of(groups))
        return {"signal/pairs": float(len(self.units(groups))), "signal/untrained": float(untrained)}

    def objective(self) -> Objective:
        return PreferenceObjective(beta=self.config.beta)
