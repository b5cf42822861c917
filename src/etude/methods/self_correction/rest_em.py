"""ReST-EM: sample many answers, keep the right ones, fine-tune the base model on them; again and again (Singh et al., arXiv:2312.06585).

Each round is one step of expectation-maximisation: the newest policy makes answers and a verifier keeps the right ones (E), then the model that the run *began* with is
fine-tuned on them (M). Going back to the base keeps what a round learns from piling up, and answers of easy tasks are capped, because they would outnumber the hard ones.

Differs from RAFT in its rounds: RAFT takes one step on every batch of attempts and goes on from there; here a round's examples are gone through several times, from the
base. `--start-from newest` is online rejection-sampling fine-tuning, and one round (`--rounds 1`) is RFT (Yuan et al., arXiv:2308.01825).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etude.claim import ON_TINY, Arm, Claim, Comparison, room_to_learn
from etude.config import Count
from etude.curation import capped, distinct, rewarded, with_origin
from etude.evals.measures import AtBudget, gain
from etude.evals.soundness import audited
from etude.iterated import IteratedConfig, IteratedImitation
from etude.method import register
from etude.types import Metrics, Task, Trajectory, trajectories_of


@dataclass
class ReSTEMConfig(IteratedConfig):
    """Options of ReST-EM."""

    keep_above: float = 0.5
    """Imitate attempts with a reward above this."""
    keep_per_task: Count = 10
    """Attempts of one task to imitate at most (0: all)."""
    keep_distinct: bool = True
    """Count attempts of a task that are the same text once."""


@register(
    slug="rest-em",
    name="ReST-EM",
    family="self_correction",
    paper="2312.06585",
    title="Beyond Human Data: Scaling Self-Training for Problem-Solving with Language Models",
    summary="rounds of sampling, keeping what is right, and fine-tuning the base model on it",
    config=ReSTEMConfig,
    claim=Claim(
        statement="Fine-tuning the base model on its own answers that a verifier finds right improves it, and more rounds improve it further.",
        expectation="On the same number of rollouts and optimiser steps, three rounds lift held-out pass@1 by more than 10 points, and end above one round that is three "
        "times as large.",
        arms=(
            Arm("rest-em", settings={"rounds": 3, "tasks_per_round": 128}),
            Arm("one round", "rest-em", {"rounds": 1, "tasks_per_round": 384, "steps_per_round": 60}),
            Arm("all attempts", "rest-em", {"rounds": 3, "tasks_per_round": 128, "keep_above": -1.0}),
        ),
        common={**ON_TINY, "group_size": 8, "steps_per_round": 20, "evaluate_every": 20},
        budget="60-steps",
        tests=(
            Comparison("gain over the start", "rest-em", None, gain("eval/pass@1"), margin=0.1),
            Comparison("rounds", "rest-em", "one round", AtBudget("eval/pass@1")),
            Comparison("the selection by reward", "rest-em", "all attempts", AtBudget("eval/pass@1"), role="ablation"),
        ),
        preconditions=(room_to_learn("rest-em"),),
        tried="Nothing yet.",
    ),
)
class ReSTEM(IteratedImitation):
    """Differs from GRPO in everything after the rewards, and in working by rounds."""

    config: ReSTEMConfig

    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        groups, metrics = self.attempted(tasks)
        kept = self.kept(trajectories_of(groups))
        return kept, metrics | {"round/tasks_kept": float(len({t.task.id for t in kept}))} | audited(self.task_set, kept)

    def kept(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """The attempts that are imitated."""
        config = self.config
        good = rewarded(trajectories, config.keep_above)
        if config.keep_distinct:
            good = distinct(good)
        return [with_origin(t, reward=t.reward) for t in capped(good, config.keep_per_task, self.run.rng("kept", self.round))]
