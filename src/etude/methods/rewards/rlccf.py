"""RLCCF: several different models learn together from what all of them vote for (arXiv:2508.12338).

Every model tries the same tasks, none of which needs a reference answer. The answer that gets most votes over all models' attempts is the label, and each model is
trained by GRPO, on its own attempts alone, towards giving it. A single model that learns from its own majority (TTRL) makes its systematic mistakes firmer, however
many attempts vote. Models that were made differently are mistaken differently, so that together they outvote the mistakes of each.

A vote weighs by its author's self-consistency at that task: the share of its attempts that give its most common answer. Who knows agrees with itself and who guesses
does not, so that one model that knows can outvote several that guess. Consistency is not truth, though: a mistake that most models share, or that one makes with
full certainty, is learnt by all of them, and the reward rises all the same. Hence the labelled probe, and the metrics `crowd/...`.

Differs from GRPO in the reward, and in that there are several policies, each with a tokenizer, optimiser and reference of its own. Answers pass between them as
normalised texts. Advantages are taken among a model's own attempts, whose difficulty is that model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import NonNegative
from etude.crowd import AnswerIn, Crowd, CrowdConfig, Member, Sampled
from etude.errors import InputError
from etude.evals.measures import Final
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.rewards.votes import CrowdVote, Vote, answers_of, consistency_weights, crowd_vote, self_consistency, vote_metrics, wrong_agreement
from etude.tasks.base import RIGHT
from etude.types import Group, Metrics, Trajectory, mean

OWN = {"method": "rlccf", "mistakes": "own", "sure": 0.9, "right": 0.15, "wrong": 0.55}
"""Teachers of the claim's first setting, in which any vote over different models helps."""
SHARED = {"method": "rlccf", "mistakes": "shared", "sure": 0.95, "right": 0.1, "wrong": 0.5}
"""Those of the second, in which only weights do: mistaken all alike, and surer of what they know."""
CLOSE = 0.5
"""Margin of a vote, as a share of all weights, below which it was close."""
DICTATES, DIFFERS = 0.95, 0.6
"""One member dictates when the label is its own favourite on this share of the tasks, and that of each other one on less than the second."""


@dataclass
class RLCCFConfig(GRPOConfig, CrowdConfig):
    """Options of RLCCF."""

    kl_coefficient: NonNegative = 0.005
    """Weight of the divergence from each model's own starting weights in the loss."""
    crowd_vote: Literal["weighted", "plain", "own"] = "weighted"
    """Who says what the label is: everybody, by self-consistency; everybody alike; or, as a control, each model for itself, which is TTRL."""
    consistency_power: NonNegative = 1.0
    """Power of self-consistency in a weighted vote: 0 is the plain vote, a large one leaves it to the most certain model."""
    leave_out_own: bool = False
    """Take each model's label from the votes of the others alone."""


class Learner(Member, GRPO):
    """One of the models: GRPO with rewards from elsewhere."""


@register(
    slug="rlccf",
    name="RLCCF",
    family="rewards",
    paper="2508.12338",
    title="Wisdom of the Crowd: Reinforcement Learning from Coevolutionary Collective Feedback",
    summary="several models learn from what all of them vote for",
    config=RLCCFConfig,
    signal="votes",
    claim=Claim(
        statement="Different models that learn from a vote over all of their attempts, weighed by each one's self-consistency, improve each and as a crowd, where learning "
        "from one model's own votes hardly helps; and weighing votes beats counting them.",
        expectation="Four models are each taught one of four words and are mistaken about the others. With mistakes of their own, on the same number of attempts, their mean "
        "pass@1 ends more than 20 points above that of models which follow their own votes, no member gains less than 5 points, and the crowd's vote gains. With mistakes "
        "that they share, the weighted vote ends more than 5 points above the plain one. Four copies of one model end at least 20 points below four different ones.",
        arms=(
            Arm("rlccf", settings=OWN),
            Arm("own votes", "rlccf", {**OWN, "crowd_vote": "own"}),
            Arm("copies", "rlccf", {**OWN, "teachers": (0, 0, 0, 0)}),
            Arm("shared mistakes", "rlccf", SHARED),
            Arm("shared mistakes, plain vote", "rlccf", {**SHARED, "crowd_vote": "plain"}),
        ),
        common={"tasks_per_step": 6, "group_size": 8, "lr": 3e-4, "eval_tasks": 48, "eval_samples": 4, "evaluate_every": 0, "probe": "never"},
        experiment="etude.experiments.crowds:crowd_experiment",
        budget="4608-rollouts",
        seeds=reported_seeds(8),
        tests=(
            Comparison("over each model's own vote", "rlccf", "own votes", Final("pass_rate"), margin=0.2),
            Comparison("every member gains", "rlccf", None, Final("least_gain"), margin=0.05),
            Comparison("the crowd gains", "rlccf", None, Final("vote") - Final("vote_first")),
            Comparison("weights, where mistakes are shared", "shared mistakes", "shared mistakes, plain vote", Final("pass_rate"), margin=0.05),
            Comparison("different models", "rlccf", "copies", Final("pass_rate"), margin=0.2, role="ablation"),
        ),
        preconditions=(
            Precondition(
                "room to learn", "rlccf", Final("pass_rate_first"), at_least=0.15, at_most=0.5, otherwise="the models solve almost nothing, or most of it"
            ),
            Precondition(
                "the crowd knows more",
                "rlccf",
                Final("vote_first") - Final("best_first"),
                at_least=0.1,
                otherwise="the crowd's vote is right no more often than its best member, and there is nothing to learn from it",
            ),
            Precondition(
                "certainty tells",
                "shared mistakes",
                Final("vote_first") - Final("plain_vote_first"),
                at_least=0.1,
                otherwise="who knows is no surer than who does not, and weights change nothing",
            ),
        ),
        tried="Warm starts and learning rate, on seed 0. Imitating teachers right away, for 24 steps of 64, taught tiny next to nothing of eight words; a stranger first, "
        "and four words, did. At 1e-3 the crowd's vote fell, from 79 % to 40 % in 20 steps, while the models' pass@1 rose from 25 % to 35 %. At 3e-4, as here but for 30 "
        "steps: RLCCF from 25 % to 71 % (the vote from 79 % to 100 %), own votes to 27 % (52 %). With shared mistakes from 25 %: weighted to 49 % (the vote from 69 % to "
        "58 %), plain to 24 % (0 %). Three reported seeds then all went the expected way, by 28 and 15 points, and were too few for four tests. So eight are run.",
        quick={"warm_steps": 1, "form_steps": 1, "warm_tasks_per_step": 8},
    ),
)
class RLCCF(Crowd):
    """Several GRPO learners whose reward is the crowd's vote."""

    config: RLCCFConfig
    member_class = Learner

    def setup(self) -> None:
        if self.config.leave_out_own and self.config.crowd_vote == "own":
            raise InputError("--leave-out-own takes a model's own votes out, and --crowd-vote own takes only those in; drop one of them")
        super().setup()

    def judge(self, sampled: Sampled, answer_in: AnswerIn) -> Metrics:
        answers = [[answers_of(group.trajectories, answer_in) for group in groups] for groups in sampled]
        votes = [self.votes(list(row)) for row in zip(*answers, strict=True)]
        for member, groups in enumerate(sampled):
            for task, group in enumerate(groups):
                label = votes[task][member].answer
                group.tags["label"] = label
                for trajectory, answer in zip(group.trajectories, answers[member][task], strict=True):
                    trajectory.rewards["vote"] = trajectory.reward = float(label is not None and answer == label)
        return crowd_vote_metrics([member.name for member in self.members], sampled, answers, votes)

    def votes(self, answers: Sequence[Sequence[str | None]]) -> list[CrowdVote]:
        """The vote that gives each member its label for one task; one row of answers a member."""
        power = self.config.consistency_power if self.config.crowd_vote == "weighted" else 0.0
        everybody = range(len(answers))

        def vote_of(voters: Sequence[int]) -> CrowdVote:
            rows = [answers[i] for i in voters]
            return crowd_vote(rows, consistency_weights(rows, power=power))

        if self.config.crowd_vote == "own":
            return [vote_of([member]) for member in everybody]
        if self.config.leave_out_own:
            return [vote_of([other for other in everybody if other != member]) for member in everybody]
        return [vote_of(everybody)] * len(answers)


# A member's setup asks its card whether there are labels.
Learner.card = RLCCF.card


def crowd_vote_metrics(
    names: Sequence[str], sampled: Sampled, answers: Sequence[Sequence[Sequence[str | None]]], votes: Sequence[Sequence[CrowdVote]]
) -> Metrics:
    """How a step's votes went. For logging only: nothing learns from it.

    sampled, answers: [members][tasks]; votes: [tasks][members], the vote that each member's label came from.
    Returns means over tasks, and over members where there is no name:

    - `crowd/consistency`: the winner's share of all weights. `crowd/margin`: its lead. `crowd/dissent`: how often a member's most common answer is another.
    - `crowd/NAME/self_consistency`; `crowd/NAME/followed`: share of tasks on which the label is this member's most common answer.
    - `crowd/dictated`: 1 where one member is followed nearly always and the others are not.
    - `crowd/same_mistakes`: of all pairs of wrong attempts of two members at a task, the share that give the same answer.
    - `votes/...` as for any vote; `votes/label_accuracy_close` and `_clear`: of votes with little and with much margin.
    """
    tasks, members = range(len(votes)), range(len(names))
    followed = [[crowd_vote([answers[m][t]], [1.0]).answer == votes[t][m].answer is not None for t in tasks] for m in members]
    shares = [mean([float(f) for f in row]) for row in followed]
    metrics: Metrics = {
        "crowd/consistency": mean([vote.consistency for row in votes for vote in row]),
        "crowd/margin": mean([vote.margin for row in votes for vote in row]),
        "crowd/dissent": 1 - mean(shares),
        "crowd/dictated": float(any(s > DICTATES and all(o < DIFFERS for j, o in enumerate(shares) if j != i) for i, s in enumerate(shares))),
    }
    for m, name in enumerate(names):
        metrics[f"crowd/{name}/self_consistency"] = mean([self_consistency(answers[m][t]) for t in tasks])
        metrics[f"crowd/{name}/followed"] = shares[m]
    return metrics | _against_labels(sampled, answers, votes)


def _against_labels(sampled: Sampled, answers: Sequence[Sequence[Sequence[str | None]]], votes: Sequence[Sequence[CrowdVote]]) -> Metrics:
    """What needs verdicts beside the votes: how often labels and rewards are right, and how alike mistakes are."""
    own: list[tuple[Group, Vote]] = []
    everyone: list[tuple[Group, Vote]] = []
    agreeing = pairs = 0
    for task, row in enumerate(votes):
        attempts = [t for groups in sampled for t in groups[task].trajectories]
        given = [a for of_member in answers for a in of_member[task]]
        for member, vote in enumerate(row):
            own.append((sampled[member][task], _as_vote(answers[member][task], vote.answer)))
            # A label is right or wrong whether or not the member that learns from it gave it.
            everyone.append((Group("", attempts), _as_vote(given, vote.answer)))
        right = [[_is_right(t) for t in groups[task].trajectories] for groups in sampled]
        same, of = wrong_agreement([of_member[task] for of_member in answers], right)
        agreeing, pairs = agreeing + same, pairs + of
    margins = [vote.margin for row in votes for vote in row]
    metrics = vote_metrics(*zip(*own, strict=True))
    labels = {
        "": everyone,
        "_close": [e for e, m in zip(everyone, margins, strict=True) if m < CLOSE],
        "_clear": [e for e, m in zip(everyone, margins, strict=True) if m >= CLOSE],
    }
    for name, of_margin in labels.items():
        if of_margin and "votes/label_accuracy" in (found := vote_metrics(*zip(*of_margin, strict=True))):
            metrics[f"votes/label_accuracy{name}"] = found["votes/label_accuracy"]
    if "votes/label_accuracy" in metrics and pairs:
        metrics["crowd/same_mistakes"] = agreeing / pairs
    return metrics


def _as_vote(answers: Sequence[str | None], label: str | None) -> Vote:
    winners = tuple(label is not None and a == label for a in answers)
    return Vote(label, mean([float(w) for w in winners]), winners)


def _is_right(trajectory: Trajectory) -> bool:
    return trajectory.rewards.get("correct", 0.0) >= RIGHT
