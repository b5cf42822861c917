"""DARS-B: DARS with breadth (Yang et al., arXiv:2508.13755).

How many tasks a step practises is an axis of its own beside how often each is tried. Many tasks make the gradient steadier and keep entropy up, which lifts pass@1, while
more attempts at hard tasks lift pass@k. Because the second round makes the batch's size unpredictable, mini-batches are given up: one optimiser step over the whole
batch, twice (two epochs), with the clip at work in the second.

Differs from DARS only in numbers: 192 tasks a step (the paper has 3072 against 128), one mini-batch, two epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from etude.claim import ON_TINY, Arm, Claim, Comparison, room_to_learn
from etude.config import AtLeastOne, LearnerConfig
from etude.errors import InputError
from etude.evals.measures import AtBudget, Average
from etude.method import register
from etude.methods.exploration.dars import DARS, DARSConfig


@dataclass
class DARSBConfig(DARSConfig):
    """Options of DARS-B."""

    tasks_per_step: AtLeastOne = 192
    """Tasks (prompts) per step."""
    learner: LearnerConfig = field(default_factory=lambda: LearnerConfig(epochs=2))


@register(
    slug="dars-b",
    name="DARS-B",
    family="exploration",
    paper="2508.13755",
    title="Depth-Breadth Synergy in RLVR: Unlocking LLM Reasoning Gains with Adaptive Exploration",
    summary="DARS on many more tasks a step, in full-batch updates",
    rollouts="adaptive",
    config=DARSBConfig,
    claim=Claim(
        statement="Many tasks a step with full-batch updates raise pass@1 and keep entropy up, and add to what more attempts at hard tasks do for pass@k.",
        expectation="With the same number of generated tokens, DARS on 64 tasks a step in full batches, twice over, keeps more entropy in the second half than DARS on 16 "
        "tasks in mini-batches, and ends with a pass@1 that is at most 3 points lower.",
        arms=(
            Arm("dars-b", settings={"tasks_per_step": 64}),
            Arm("dars", settings={"tasks_per_step": 16}),
            Arm("breadth without depth", "dars-b", {"tasks_per_step": 64, "quota": "none"}),
        ),
        common={**ON_TINY, "tasks": "lists:steps=3", "group_size": 8, "evaluate_every": 0, "eval_samples": 32},
        budget="150k-tokens",
        quick={"eval_samples": 8},
        tests=(
            Comparison("entropy", "dars-b", "dars", Average("rollout/entropy", last=0.5)),
            Comparison("pass@1", "dars-b", "dars", AtBudget("eval/pass@1"), margin=-0.03),
            Comparison("depth beside breadth", "dars-b", "breadth without depth", AtBudget("eval/pass@8"), role="ablation"),
        ),
        preconditions=(room_to_learn("dars-b"),),
        tried="The size of the batch: 192 tasks a step would be about three steps within the budget. With 64, seed 0 and 60k tokens, there were four steps of"
        " two updates; pass@1 ended at 36.5 % and pass@8 at 62.5 %, under DARS on 16 tasks in 16 steps at 37.9 % and 63.3 %; mean entropy over the "
        "run was 0.465 against 0.414 nats.",
    ),
)
class DARSB(DARS):
    """Differs from DARS in the size of the batch and in how it is passed over."""

    config: DARSBConfig
    overlaps: ClassVar[bool] = True

    def setup(self) -> None:
        if self.config.learner.mini_batches > 1:
            raise InputError(
                f"--mini-batches is {self.config.learner.mini_batches}; DARS-B updates on the full batch, so expected 1 (and more --epochs for more updates); "
                "dars takes mini-batches"
            )
        super().setup()
