"""Dr. GRPO: GRPO without its two biases (Liu et al., arXiv:2503.20783).

Dividing by each answer's length makes a long wrong answer cheap per token, so wrong answers grow; dividing by the group's standard deviation weighs tasks that are
nearly solved or nearly unsolved above the rest. Both divisions are left out: the advantage is the reward minus the group's mean, and token losses are summed and
divided by a constant.

The constant is the token limit of a rollout, so gradients are smaller than GRPO's: it wants a larger learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from etude.advantages import centred
from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition
from etude.evals.measures import AtBudget, Attempts
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.objectives import Aggregation


@dataclass
class DrGRPOConfig(GRPOConfig):
    """Options of Dr. GRPO."""

    aggregation: Aggregation = "dr_grpo"


WRONG_LENGTH_LATE = Attempts("length", where={"correct": 0.0}, part=(0.75, 1.0))


@register(
    slug="dr-grpo",
    name="Dr. GRPO",
    family="baselines",
    paper="2503.20783",
    title="Understanding R1-Zero-Like Training: A Critical Perspective",
    summary="GRPO without the divisions by length and by spread",
    config=DrGRPOConfig,
    claim=Claim(
        statement="Dividing an answer's loss by its length makes long wrong answers cheap, so that under GRPO they grow; without the division they stay short, at "
        "no loss in accuracy.",
        expectation="In the last quarter of the budget wrong attempts are shorter under Dr. GRPO than under GRPO, and held-out pass@1 is at most 3 points lower.",
        arms=(
            Arm("dr-grpo"),
            Arm("grpo"),
            Arm("with division by length", "dr-grpo", {"aggregation": "seq_mean_token_mean"}),
        ),
        common={**ON_TINY, "max_new_tokens": 64, "save_trajectories": 64},
        budget="300k-tokens",
        tests=(
            Comparison("length of wrong attempts", "dr-grpo", "grpo", WRONG_LENGTH_LATE, better="lower"),
            Comparison("accuracy is kept", "dr-grpo", "grpo", AtBudget("eval/pass@1"), margin=-0.03),
            Comparison("the division by length", "dr-grpo", "with division by length", WRONG_LENGTH_LATE, better="lower", role="ablation"),
        ),
        preconditions=(
            Precondition(
                "wrong attempts grow under GRPO",
                "grpo",
                WRONG_LENGTH_LATE - Attempts("length", where={"correct": 0.0}, part=(0.0, 0.1)),
                at_least=0.5,
                otherwise="nothing grows that could be kept from growing",
            ),
        ),
        tried="The task set. On countdown all attempts are about equally long, and wrong ones had not grown after ten steps under GRPO (seed 0); on arithmetic wrong "
        "attempts differ in length. The limit of 64 tokens, where 24 are usual, leaves room to grow.",
    ),
)
class DrGRPO(GRPO):
    """Differs from GRPO in the advantage and in how token losses are added up."""

    overlaps: ClassVar[bool] = True
    advantage: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(centred)
