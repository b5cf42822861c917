"""RLOO: REINFORCE with the other attempts' mean as baseline (Ahmadian et al., arXiv:2402.14740).

Language models start from good policies, where plain REINFORCE works and PPO's machinery is not needed. What REINFORCE needs is a baseline: the mean reward of the
other attempts at the task, which does not depend on the attempt itself and so biases nothing. A divergence from the starting policy is part of the reward, and the
ratio is that of the whole answer.

`kl_coefficient` works on the reward here (the paper's form), not on the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from etude.advantages import leave_one_out
from etude.claim import Arm, Claim, Comparison, Precondition
from etude.config import NonNegative
from etude.evals.measures import Final
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.objectives import Objective, PolicyObjective, sequence_product
from etude.objectives.policy import Ratio
from etude.types import Group, Metrics, mean, trajectories_of


@dataclass
class RLOOConfig(GRPOConfig):
    """Options of RLOO."""

    kl_coefficient: NonNegative = 0.05
    """Weight of the divergence from the starting policy, summed over an answer's tokens, in its reward."""


@register(
    slug="rloo",
    name="RLOO",
    family="baselines",
    paper="2402.14740",
    title="Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
    summary="REINFORCE whose baseline is the mean of the other attempts",
    config=RLOOConfig,
    claim=Claim(
        statement="The mean reward of the other attempts is a baseline that biases nothing and makes REINFORCE's gradient less noisy.",
        expectation="At the starting policy, on the same attempts, with rewards whose zero means nothing (wrong 1, right 2), the leave-one-out gradient has less than "
        "half the variance between tasks of the gradient without a baseline.",
        arms=(
            Arm("leave one out", "rloo", {"baseline": "leave-one-out"}),
            Arm("no baseline", "rloo", {"baseline": "none"}),
            Arm("batch mean", "rloo", {"baseline": "batch-mean"}),
        ),
        common={"model": "tiny", "tasks": "arithmetic", "group_size": 8, "offset": 1.0},
        experiment="etude.experiments.gradient_noise:gradient_noise",
        budget="1024-rollouts",
        tests=(
            Comparison("variance of the gradient, doublings", "leave one out", "no baseline", Final("log2_variance"), better="lower", margin=1.0),
            Comparison("own task's attempts as baseline", "leave one out", "batch mean", Final("log2_variance"), better="lower", role="ablation"),
        ),
        preconditions=(
            Precondition(
                "groups have spread", "leave one out", Final("groups_with_spread"), at_least=0.3, otherwise="most gradients are 0 whatever the baseline"
            ),
        ),
        tried="The offset. With rewards of 0 and 1 (offset 0) the effect was the other way round on seeds 0 and 1: without a baseline a failed attempt weighs nothing, "
        "and failed attempts, which hold the unlikely tokens, have the large gradients. A model of preferences, as in the paper, gives scores without such a zero.",
        quick_budget="16-rollouts",
    ),
)
class RLOO(GRPO):
    """Differs from GRPO in the advantage, the ratio and where the divergence enters."""

    config: RLOOConfig
    overlaps: ClassVar[bool] = True
    ratio: ClassVar[Ratio] = staticmethod(sequence_product)
    advantage: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(leave_one_out)

    def setup(self) -> None:
        super().setup()
        if self.config.kl_coefficient:
            self.learner.freeze_reference()

    def objective(self) -> Objective:
        objective = super().objective()
        assert isinstance(objective, PolicyObjective)
        objective.kl_coefficient = 0.0
        return objective

    def credit(self, groups: Sequence[Group]) -> Metrics:
        metrics = self.penalise_divergence(groups) if self.config.kl_coefficient else {}
        return metrics | super().credit(groups)

    def penalise_divergence(self, groups: Sequence[Group]) -> Metrics:
        """Take the divergence, summed over an answer's tokens (k1), off its reward."""
        trajectories = trajectories_of(groups)
        start = self.learner.logprobs(trajectories, reference=True)
        self.run.ledger.forward_equivalents += sum(map(len, start))
        divergences = [
            sum(s.logprobs[i] for s in t.segments if s.trained for i in range(len(s.tokens))) - sum(values)
            for t, values in zip(trajectories, start, strict=True)
        ]
        for trajectory, divergence in zip(trajectories, divergences, strict=True):
            trajectory.rewards["kl"] = divergence
            if not math.isnan(trajectory.reward):
                trajectory.reward -= self.config.kl_coefficient * divergence
        return {"reward/kl": mean(divergences)}
