"""TTRL: reinforcement learning on tasks without answers, with the majority's answer as the label (arXiv:2504.16084).

Each task is tried many times, and the answer that most attempts give stands in for the reference: attempts that gave it earn 1, all others 0. As long as the
majority is right more often than a single attempt, which is why voting helps at test time, the policy is pulled towards better answers, and the next majority is
better still. Where the majority is wrong the mistake is learnt just as surely, and the reward rises all the same: hence the labelled probe that watches the run.

Differs from GRPO in the reward, and in that more attempts vote (`votes_per_task`) than are trained on (`group_size`, the first of them). Reference answers, where
tasks have them, are used for nothing but the logged `votes/label_accuracy` and its like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition, room_to_learn
from etude.config import AtLeastOne, NonNegative
from etude.errors import InputError
from etude.evals.measures import AtBudget, First, gain
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.objectives import Aggregation
from etude.rewards.votes import Vote, answers_of, any_answer, different_answers, majority, vote_metrics
from etude.types import Group, Metrics, Task


@dataclass
class VotedConfig(GRPOConfig):
    """Options of methods whose reward is a vote."""

    aggregation: Aggregation = "token_mean"
    """How per-token losses become one number."""
    kl_coefficient: NonNegative = 0.001
    """Weight of the divergence from the starting policy in the loss."""
    pseudo_labels: Literal["majority", "random"] = "majority"
    """Which of the answers that were given is the label: the most common one, or, as a control, any."""


class Voted(GRPO):
    """GRPO whose reward is whether an attempt gave the answer that its group voted for."""

    config: VotedConfig

    def judge(self, groups: Sequence[Group]) -> None:
        super().judge(groups)
        elect = majority if self.config.pseudo_labels == "majority" else any_answer
        for place, group in enumerate(groups):
            vote = elect(answers_of(group.trajectories, self.task_set.answer_in), self.run.rng(self.run.step, "vote", place, group.key))
            group.tags |= {"vote": vote, "label": vote.answer}
            for trajectory, reward in zip(group.trajectories, vote.rewards, strict=True):
                trajectory.rewards["vote"] = trajectory.reward = reward

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        groups = super().collect(tasks)
        votes: list[Vote] = [group.tags["vote"] for group in groups]
        answers = [answers_of(group.trajectories, self.task_set.answer_in) for group in groups]
        self.counted = vote_metrics(groups, votes) | {"explore/answers": different_answers(answers)}
        return groups

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return super().credit(groups) | self.counted


@dataclass
class TTRLConfig(VotedConfig):
    """Options of TTRL."""

    votes_per_task: AtLeastOne = 32
    """Attempts at each task that vote; the first `group_size` of them are trained on."""


@register(
    slug="ttrl",
    name="TTRL",
    family="exploration",
    paper="2504.16084",
    title="TTRL: Test-Time Reinforcement Learning",
    summary="the answer that most attempts give is the label",
    config=TTRLConfig,
    signal="votes",
    claim=Claim(
        statement="A model improves on tasks without any reference answer by taking the majority's answer as the label.",
        expectation="Without labels held-out pass@1 rises by more than 20 points. With any of the given answers as the label it ends at least 10 points lower.",
        arms=(Arm("ttrl"), Arm("any answer", "ttrl", {"pseudo_labels": "random"})),
        common={**ON_TINY, "tasks_per_step": 8, "eval_tasks": 96, "probe": "never"},
        budget="120k-tokens",
        tests=(
            Comparison("gain without labels", "ttrl", None, gain("eval/pass@1"), margin=0.2),
            Comparison("the majority's answer", "ttrl", "any answer", AtBudget("eval/pass@1"), margin=0.1, role="ablation"),
        ),
        tried="One run of each arm with 120k tokens, on seed 0: 33.6 % before, 77.5 % after 10 steps, 89.5 % at the end; with any answer as the label 12.5 % and 4.2 %.",
        preconditions=(
            room_to_learn("ttrl"),
            Precondition(
                "the majority knows more",
                "ttrl",
                First("votes/label_accuracy") - First("votes/right_share"),
                at_least=0.1,
                otherwise="the majority is right no more often than a single attempt, and there is nothing to learn from it",
            ),
        ),
    ),
)
class TTRL(Voted):
    """Differs from GRPO in the reward, and in how many attempts vote."""

    config: TTRLConfig
    overlaps: ClassVar[bool] = True

    def setup(self) -> None:
        super().setup()
        if self.config.votes_per_task < self.config.group_size:
            raise InputError(
                f"--votes-per-task is {self.config.votes_per_task} and --group-size {self.config.group_size}; "
                "the attempts that are trained on are among those that vote, so expected at least as many votes"
            )

    @property
    def attempts_per_task(self) -> int:
        return self.config.votes_per_task

    def select(self, groups: list[Group]) -> list[Group]:
        return [Group(group.key, group.trajectories[: self.config.group_size], group.tags) for group in groups]
