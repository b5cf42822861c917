"""GSPO: the importance ratio of a whole answer (Zheng et al., arXiv:2507.18071).

The reward judges an answer, so the ratio that corrects for stale rollouts should be an answer's too. A single token's ratio is a noisy weight, and noise adds up over
a long answer. GSPO takes the geometric mean of the token ratios, clips that, and gives it to all tokens; its clip range is accordingly tiny (3e-4 and 4e-4 in the
paper, for long answers; short ones move more, so the default here is wider).

With one optimiser step per batch the ratio is 1 and GSPO is GRPO: `mini_batches` or `epochs` above 1 bring the difference out, and are the default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition
from etude.config import LearnerConfig, NonNegative
from etude.evals.measures import Area, Average, Deviation
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.objectives import sequence_ratio
from etude.objectives.policy import Ratio


@dataclass
class GSPOConfig(GRPOConfig):
    """Options of GSPO."""

    clip_low: NonNegative = 0.05
    """How far below 1 the sequence's ratio may go."""
    clip_high: NonNegative = 0.05
    """How far above 1 the sequence's ratio may go."""
    learner: LearnerConfig = field(default_factory=lambda: LearnerConfig(mini_batches=4))


GRADIENT_VARIATION = Deviation("loss/grad_norm") / Average("loss/grad_norm")


@register(
    slug="gspo",
    name="GSPO",
    family="baselines",
    paper="2507.18071",
    title="Group Sequence Policy Optimization",
    summary="one importance ratio per answer instead of per token",
    config=GSPOConfig,
    claim=Claim(
        statement="Clipping the ratio of the whole answer instead of each token's keeps training on stale rollouts stable and more efficient.",
        expectation="With 32 optimiser steps on each batch of rollouts, GSPO's held-out pass@1 over the budget is above that of GRPO, and its gradient norm varies less "
        "from step to step, relative to its mean.",
        arms=(
            Arm("gspo"),
            Arm("token ratios", "grpo"),
            Arm("without clipping", "gspo", {"clip_low": 100.0, "clip_high": 100.0}),
        ),
        common={**ON_TINY, "mini_batches": 8, "epochs": 4},
        budget="200k-tokens",
        tests=(
            Comparison("accuracy over the budget", "gspo", "token ratios", Area("eval/pass@1")),
            Comparison("steadiness of the gradient", "gspo", "token ratios", GRADIENT_VARIATION, better="lower"),
            Comparison("the clip on whole answers", "gspo", "without clipping", Area("eval/pass@1"), role="ablation"),
        ),
        preconditions=(
            Precondition("rollouts are stale", "token ratios", Average("loss/clip_fraction"), at_least=0.01, otherwise="no ratio leaves the clip range"),
        ),
    ),
)
class GSPO(GRPO):
    """Differs from GRPO in the ratio."""

    overlaps: ClassVar[bool] = True
    ratio: ClassVar[Ratio] = staticmethod(sequence_ratio)
