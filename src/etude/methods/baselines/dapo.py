"""DAPO: four changes that keep GRPO learning on long runs (Yu et al., arXiv:2503.14476).

Clip-higher: the upper clip is wider than the lower, so unlikely good tokens can grow and entropy lasts. Dynamic sampling: groups whose attempts are all right or all
wrong are dropped, and more tasks sampled until the batch is full of groups that teach. Token-level loss: every token weighs the same, however long its answer.
Overlong shaping: answers longer than expected lose reward gradually instead of all at once.

As in the paper, rollouts may be longer than answers are expected to be, by a cache of tokens over which the penalty falls to -1 (there 16384 and 4096 tokens): an
answer within the expected length loses nothing. The task set says what is expected. A `max_new_tokens` of the user's own is the whole limit, cache included.

Each of the four has its own option. Everything that dynamic sampling generates counts in the budget, whether it is kept or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition
from etude.config import AtLeastOne, NonNegative
from etude.errors import InputError
from etude.evals.measures import AtBudget, Average
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.models.sampling import SamplingParams
from etude.objectives import Aggregation
from etude.rewards import add_overlong
from etude.rollouts import is_mixed, until_enough
from etude.types import Group, Metrics, Task, trajectories_of


@dataclass
class DAPOConfig(GRPOConfig):
    """Options of DAPO."""

    clip_high: NonNegative = 0.28
    """How far above 1 the importance ratio may go."""
    aggregation: Aggregation = "token_mean"
    """How per-token losses become one number."""
    dynamic_sampling: bool = True
    """Replace groups that are all right or all wrong by further tasks."""
    sampling_rounds: AtLeastOne = 10
    """Rounds of further tasks at most."""
    overlong_weight: NonNegative = 1.0
    """Weight of the penalty on answers that are longer than expected (0: off)."""
    overlong_share: NonNegative = 0.2
    """Tokens over which that penalty rises, as a share: of the task set's limit, and on top of it; or, where `max_new_tokens` is given, the last share of that."""


@register(
    slug="dapo",
    name="DAPO",
    family="baselines",
    paper="2503.14476",
    title="DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    summary="wider upper clip, only groups that teach, token-level loss, soft length limit",
    config=DAPOConfig,
    claim=Claim(
        statement="A wider upper clip keeps entropy from collapsing, and replacing groups without spread keeps every update full of signal, so that training gets "
        "further.",
        expectation="On the same number of generated tokens and with several optimiser steps a batch, DAPO keeps more entropy than GRPO and ends with a higher "
        "held-out pass@1.",
        arms=(
            Arm("dapo", settings={"overlong_weight": 0.0}),
            Arm("grpo"),
            Arm("without the wider clip", "dapo", {"overlong_weight": 0.0, "clip_high": 0.2}),
            Arm("without dynamic sampling", "dapo", {"overlong_weight": 0.0, "dynamic_sampling": False}),
        ),
        common={**ON_TINY, "mini_batches": 8, "epochs": 2},
        budget="250k-tokens",
        tests=(
            Comparison("entropy", "dapo", "grpo", Average("rollout/entropy", last=0.5)),
            Comparison("accuracy", "dapo", "grpo", AtBudget("eval/pass@1")),
            Comparison("the wider clip keeps entropy", "dapo", "without the wider clip", Average("rollout/entropy", last=0.5), role="ablation"),
            Comparison("dynamic sampling", "dapo", "without dynamic sampling", AtBudget("eval/pass@1"), role="ablation"),
        ),
        preconditions=(
            Precondition(
                "clipping acts", "grpo", Average("loss/clip_fraction"), at_least=0.005, otherwise="no ratio leaves the clip range, so its width plays no part"
            ),
            Precondition(
                "some groups do not teach", "grpo", Average("signal/groups_with_spread", last=0.5), at_most=0.9, otherwise="there is nothing to replace"
            ),
        ),
    ),
)
class DAPO(GRPO):
    """Differs from GRPO in the clip range, the batch, the aggregation and the reward."""

    config: DAPOConfig
    overlaps: ClassVar[bool] = True
    overlong_cache = 0
    """Tokens of a turn, its last, over which the length penalty falls to -1."""

    def sampling_params(self) -> SamplingParams:
        params = super().sampling_params()
        if not self.config.overlong_weight:
            return params
        limit, share = params.max_new_tokens, self.config.overlong_share
        self.overlong_cache = max(1, round(share * limit))
        if not self.config.sampler.max_new_tokens:
            return replace(params, max_new_tokens=limit + self.overlong_cache)
        if self.overlong_cache > limit:
            raise InputError(f"--overlong-share is {share}; with --max-new-tokens {limit} it is a share of that limit, so expected at most 1")
        return params

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        size = self.config.tasks_per_step
        everything, self.kept = until_enough(
            tasks,
            attempt=self.tried,
            # A round is a whole batch; the mixed groups that are too many are left out.
            more=lambda _missing: self.curriculum.next(size),
            wanted=size,
            rounds=self.config.sampling_rounds if self.config.dynamic_sampling else 1,
            teaches=self.teaches,
        )
        return everything

    def teaches(self, group: Group) -> bool:
        """Whether dynamic sampling keeps a group."""
        return is_mixed(group)

    def judge(self, groups: Sequence[Group]) -> None:
        super().judge(groups)
        self.penalise_length(groups)

    def penalise_length(self, groups: Sequence[Group]) -> None:
        """Take the soft penalty for long answers off their rewards."""
        if self.config.overlong_weight:
            trajectories = trajectories_of(groups)
            # The limit is one turn's; an episode in an environment has as many of them as it has turns.
            turns = self.max_turns if any("environment_reward" in t.tags for t in trajectories) else 1
            limit, cache = self.params.max_new_tokens * turns, self.overlong_cache * turns
            add_overlong(trajectories, max_length=limit, cache=cache, weight=self.config.overlong_weight)

    def select(self, groups: list[Group]) -> list[Group]:
        return self.kept if self.config.dynamic_sampling else groups

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return super().credit(groups) | {"signal/groups_trained": float(len(groups))}
