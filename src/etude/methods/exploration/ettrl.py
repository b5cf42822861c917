"""ETTRL: voting trees that fork where the policy is least certain, and advantages that trust certain attempts more (arXiv:2508.11356).

Two changes to TTRL, each with its own switch.

The tree makes votes cheap and different. A few whole attempts are sampled for each task; in each of them the positions of highest entropy are found, and from there
the attempt is written anew a few times. All leaves vote. What comes before a fork is generated once, so that as many votes cost little more than half the tokens.

The reshaped advantage distrusts lone hits. Early in a run few attempts agree, the label is often wrong, and those few that hit it have the largest advantages.
Each attempt's advantage is multiplied by 2 minus its mean entropy over the group's: what was written with certainty counts more, what was guessed counts less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from etude.advantages import bounded, entropy_weights
from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition, room_to_learn
from etude.config import AtLeastOne, Count, NonNegative
from etude.errors import InputError
from etude.evals.measures import AtBudget, Average, First
from etude.method import register
from etude.methods.exploration.ttrl import Voted, VotedConfig
from etude.rewards.votes import answers_of, effective_votes
from etude.rollouts.entropy_forks import ForkPlan, answer_start, balanced, grow_entropy_forks, highest_entropy, random_positions
from etude.rollouts.tree import Branch, Tree, tree_metrics
from etude.rollouts.tree_record import record_of_tree
from etude.types import Group, Metrics, Task, Trajectory, mean


@dataclass
class ETTRLConfig(VotedConfig):
    """Options of ETTRL."""

    roots: AtLeastOne = 6
    """Whole attempts at each task, each of which is forked."""
    forks: Count = 2
    """Positions at which each of them is (0: no tree)."""
    branches: AtLeastOne = 2
    """Times that it is written anew from each."""
    fork_at: Literal["entropy", "random"] = "entropy"
    """Which positions: those of highest entropy, or, as a control, any."""
    fork_answers: bool = False
    """Fork within the final answer too."""
    reshaping: Literal["entropy", "none", "shuffled", "inverted"] = "entropy"
    """How advantages are weighed by the attempts' entropy; shuffled within the group and inverted are controls."""
    advantage_bound: NonNegative = 0.0
    """Cut advantages to this size (0: do not; the paper's other form of reshaping has 2)."""


@register(
    slug="ettrl",
    name="ETTRL",
    family="exploration",
    paper="2508.11356",
    title="ETTRL: Balancing Exploration and Exploitation in LLM Test-Time Reinforcement Learning Via Entropy Mechanism",
    summary="majority votes of trees that fork at uncertain tokens, advantages weighed by certainty",
    config=ETTRLConfig,
    rollouts="tree",
    signal="votes",
    claim=Claim(
        statement="Forking a few attempts at their most uncertain tokens gives as many votes for about 60 % of the tokens, and with advantages weighed by certainty "
        "the model gets further than by TTRL.",
        expectation="On the same number of generated tokens the tree gives at least 1.6 more votes for a hundred (TTRL gives 5.5), and held-out pass@1 ends higher.",
        arms=(
            Arm("ettrl"),
            Arm("ttrl", "ettrl", {"forks": 0, "roots": 30, "reshaping": "none"}),
            Arm("random forks", "ettrl", {"fork_at": "random"}),
            Arm("shuffled weights", "ettrl", {"reshaping": "shuffled"}),
        ),
        common={**ON_TINY, "tasks": "modular", "tasks_per_step": 8, "eval_tasks": 96, "probe": "never"},
        budget="60k-tokens",
        tests=(
            Comparison("votes for a hundred tokens", "ettrl", "ttrl", Average("tree/leaves_per_100_tokens"), margin=1.6),
            Comparison("accuracy", "ettrl", "ttrl", AtBudget("eval/pass@1")),
            Comparison("label accuracy by uncertain forks", "ettrl", "random forks", Average("votes/label_accuracy"), role="ablation"),
            Comparison("the weights' places", "ettrl", "shuffled weights", AtBudget("eval/pass@1"), role="ablation"),
        ),
        tried="The tasks: on arithmetic 30 votes are always right at the starting policy, on modular on 92.5 % of the tasks. One run of the first two arms, on seed 0: "
        "71.6 % by the tree and 71.1 % without, 7.8 and 5.1 votes for a hundred tokens, 86 % and 93 % of the labels right.",
        preconditions=(
            room_to_learn("ettrl"),
            Precondition(
                "votes are divided",
                "ttrl",
                First("votes/majority_ratio"),
                at_most=0.6,
                otherwise="attempts agree from the start, and no lone hit is to be damped",
            ),
        ),
    ),
)
class ETTRL(Voted):
    """Differs from TTRL in the rollouts and the advantage."""

    config: ETTRLConfig
    overlaps: ClassVar[bool] = True

    def setup(self) -> None:
        super().setup()
        config = self.config
        self.require_single_turns("grows trees over answers of a single turn; choose other tasks, or ttrl")
        self.plan = ForkPlan(config.roots, config.forks, config.branches)
        if self.plan.leaves < config.group_size:
            raise InputError(
                f"{config.roots} roots with {config.forks} forks of {config.branches} branches give {self.plan.leaves} attempts and --group-size is "
                f"{config.group_size}; those that are trained on are among them, so expected at least as many: raise --roots or --forks"
            )

    # The tree

    def rollout(self, tasks: Sequence[Task], round_: int = 0) -> list[Group]:
        trees = grow_entropy_forks(
            self.policy,
            tasks,
            self.plan,
            self.params,
            choose=partial(self.positions, round_),
            forkable=self.forkable,
            stream=lambda task, place, sample: self.stream(task, place, sample, round_),
            ledger=self.run.ledger,
        )
        return [Group(task.id, tree.trajectories(), {"tree": tree}) for task, tree in zip(tasks, trees, strict=True)]

    def positions(self, round_: int, task: Task, root: int, entropies: Sequence[float], count: int) -> list[int]:
        """Where to fork a root."""
        if self.config.fork_at == "entropy":
            return highest_entropy(entropies, count)
        return random_positions(entropies, count, self.run.rng(self.run.step, "forks", round_, task.id, root))

    def forkable(self, root: Branch) -> int:
        """How many of a root's first tokens may be forked: not its end token and, unless asked for, not its final answer."""
        completion = root.completion
        assert completion is not None
        length = len(root.tokens) - (completion.stop_reason == "eos")
        if self.config.fork_answers:
            return length
        return min(length, answer_start(root.tokens, self.task_set.answer_in(completion.text), self.policy.decode))

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        groups = super().collect(tasks)
        trees: list[Tree] = [group.tags["tree"] for group in groups]
        answers = [answers_of(group.trajectories, self.task_set.answer_in) for group in groups]
        effective, correlation = effective_votes(answers, [[root_of(t) for t in group.trajectories] for group in groups])
        self.counted |= tree_metrics(trees) | {"votes/effective": effective, "votes/tree_correlation": correlation}
        if self.run.config.save_trajectories:
            self.run.save_trees(self.run.step, [record_of_tree(group, self.policy.decode_all, self.task_set.answer_in) for group in groups[:1]])
        return groups

    def select(self, groups: list[Group]) -> list[Group]:
        chosen = []
        for place, group in enumerate(groups):
            indices = balanced(group.tags["tree"], self.config.group_size, self.run.rng(self.run.step, "trained", place, group.key))
            chosen.append(Group(group.key, [group.trajectories[i] for i in indices], group.tags))
        return chosen

    # The advantage

    def credit(self, groups: Sequence[Group]) -> Metrics:
        metrics = super().credit(groups)
        for place, group in enumerate(groups):
            weights = self.weights(group, place)
            for trajectory, weight in zip(group.trajectories, weights.tolist(), strict=True):
                for segment in trajectory.segments:
                    if segment.trained:
                        values = torch.tensor(segment.advantages, dtype=torch.float64)
                        segment.advantages = (self.bound(values) * weight).tolist()
        return metrics | {"signal/advantage_sum": mean([sum(map(advantage_of, group.trajectories)) for group in groups])}

    def bound(self, advantages: Tensor) -> Tensor:
        return bounded(advantages, bound=self.config.advantage_bound) if self.config.advantage_bound else advantages

    def weights(self, group: Group, place: int) -> Tensor:
        """What each attempt's advantage is multiplied by. [G]"""
        if self.config.reshaping == "none":
            return torch.ones(len(group), dtype=torch.float64)
        weights = entropy_weights(torch.tensor([entropy_of(t) for t in group.trajectories], dtype=torch.float64))
        if self.config.reshaping == "inverted":
            return 2 - weights
        if self.config.reshaping == "shuffled":
            order = list(range(len(group)))
            self.run.rng(self.run.step, "shuffled", place, group.key).shuffle(order)
            return weights[order]
        return weights


def entropy_of(trajectory: Trajectory) -> float:
    """Mean entropy of the tokens that the policy wrote, in nats; 0 where it wrote none."""
    return mean([e for s in trajectory.segments if s.trained for e in s.entropies], default=0.0)


def advantage_of(trajectory: Trajectory) -> float:
    """The advantage that all of a trajectory's tokens share; 0 where it has none."""
    return next((a for s in trajectory.segments if s.trained for a in s.advantages[:1]), 0.0)


def root_of(trajectory: Trajectory) -> int:
    """The number of the attempt that it grew out of, its own where it grew out of none."""
    while trajectory.parent is not None:
        trajectory = trajectory.parent
    return trajectory.sample
