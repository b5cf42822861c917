"""REINFORCE++: REINFORCE with PPO's clip and one normalisation over the whole batch (Hu et al., arXiv:2501.03262).

No group is needed: a single attempt per task will do. Each token's return is the reward from there to the end, with the divergence from the starting policy taken off
token by token; returns are then whitened over all tokens of the batch, so that the batch is the baseline. A task's difficulty stays in the advantage, which is the price.

With `group_baseline` the group's mean is taken off first (the paper's REINFORCE++-baseline), and groups of at least two are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from etude.advantages import assign_by_group, assign_tokens, centred, returns_to_go, rewards_with_kl, whiten, whiten_tokens, whiten_trajectories
from etude.claim import ON_TINY, Arm, Claim, Comparison, room_to_learn
from etude.config import NonNegative
from etude.errors import InputError
from etude.evals.measures import Area, AtBudget
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.objectives import Aggregation, Objective, PolicyObjective
from etude.types import Group, Metrics, mean, trajectories_of


@dataclass
class ReinforcePPConfig(GRPOConfig):
    """Options of REINFORCE++."""

    aggregation: Aggregation = "token_mean"
    """How per-token losses become one number."""
    kl_coefficient: NonNegative = 0.001
    """Weight of the divergence from the starting policy, token by token in the reward (in the loss with `group_baseline`)."""
    gamma: NonNegative = 1.0
    """Discount of later rewards."""
    group_baseline: bool = False
    """Take the mean of a task's attempts off before whitening."""
    whiten_over: Literal["tokens", "trajectories"] = field(default="tokens")
    """With `group_baseline`: what is whitened."""


@register(
    slug="reinforce-pp",
    name="REINFORCE++",
    family="baselines",
    paper="2501.03262",
    title="REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization",
    summary="returns whitened over the whole batch; single attempts will do",
    config=ReinforcePPConfig,
    claim=Claim(
        statement="Normalising advantages over the whole batch needs no groups, and is stabler than normalising within small ones.",
        expectation="With single attempts at 256 tasks a step, held-out pass@1 at the end of the budget is at most 5 points below GRPO's with 16 attempts at 16; with two "
        "attempts at each task it is above GRPO's over the budget.",
        arms=(
            Arm("single attempts", "reinforce-pp", {"tasks_per_step": 256, "group_size": 1}),
            Arm("groups of 16", "grpo"),
            Arm("batch, 2 attempts", "reinforce-pp", {"tasks_per_step": 128, "group_size": 2}),
            Arm("groups of 2", "grpo", {"tasks_per_step": 128, "group_size": 2}),
        ),
        common=ON_TINY,
        budget="250k-tokens",
        tests=(
            Comparison("no groups needed", "single attempts", "groups of 16", AtBudget("eval/pass@1"), margin=-0.05),
            Comparison("better than small groups", "batch, 2 attempts", "groups of 2", Area("eval/pass@1")),
        ),
        preconditions=(room_to_learn("groups of 16"),),
    ),
)
class ReinforcePP(GRPO):
    """Differs from GRPO in the advantage and where the divergence enters."""

    config: ReinforcePPConfig
    overlaps: ClassVar[bool] = True
    minimum_group: ClassVar[int] = 1

    def setup(self) -> None:
        if self.config.group_baseline and self.config.group_size < 2:
            raise InputError(f"--group-size is {self.config.group_size}; with --group-baseline at least 2 attempts at each task are needed")
        super().setup()
        if self.config.kl_coefficient:
            self.learner.freeze_reference()

    def objective(self) -> Objective:
        objective = super().objective()
        assert isinstance(objective, PolicyObjective)
        if not self.config.group_baseline:
            objective.kl_coefficient = 0.0
        return objective

    def credit(self, groups: Sequence[Group]) -> Metrics:
        if self.config.group_baseline:
            if self.config.whiten_over == "trajectories":
                return whiten_trajectories(groups, centred, whiten)
            metrics = assign_by_group(groups, centred)
            whiten_tokens(groups, whiten)
            return metrics
        trajectories = [t for t in trajectories_of(groups) if not math.isnan(t.reward)]
        start = self.learner.logprobs(trajectories, reference=True) if self.config.kl_coefficient else None
        returns: list[list[float]] = []
        divergences: list[float] = []
        for i, trajectory in enumerate(trajectories):
            own = torch.tensor([v for s in trajectory.segments if s.trained for v in s.logprobs], dtype=torch.float64)
            kl = own - torch.tensor(start[i], dtype=torch.float64) if start is not None else torch.zeros_like(own)
            divergences.append(float(kl.sum()))
            rewards = rewards_with_kl(trajectory.reward, kl, beta=self.config.kl_coefficient) if len(own) else own
            returns.append(returns_to_go(rewards, gamma=self.config.gamma).tolist())
        for trajectory in trajectories_of(groups):
            trajectory.set_advantage(0.0)
        flat = whiten(torch.tensor([v for row in returns for v in row], dtype=torch.float64)).tolist()
        position = 0
        for row in returns:
            row[:] = flat[position : position + len(row)]
            position += len(row)
        assign_tokens(trajectories, returns)
        return {"reward/kl": mean(divergences)} if start is not None else {}
