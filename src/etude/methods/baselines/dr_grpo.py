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
from etude.method import Claim, register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.objectives import Aggregation


@dataclass
class DrGRPOConfig(GRPOConfig):
    """Options of Dr. GRPO."""

    aggregation: Aggregation = "dr_grpo"


@register(
    slug="dr-grpo",
    name="Dr. GRPO",
    family="baselines",
    paper="2503.20783",
    title="Understanding R1-Zero-Like Training: A Critical Perspective",
    summary="GRPO without the divisions by length and by spread",
    config=DrGRPOConfig,
    claim=Claim("At equal reward, wrong answers do not grow longer, as they do under GRPO.", baseline="grpo"),
)
class DrGRPO(GRPO):
    """Differs from GRPO in the advantage and in how token losses are added up."""

    advantage: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(centred)
