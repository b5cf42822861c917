"""Pair-SFT: pair any wrong answer with any right one, and imitate the right one as its correction (after Welleck et al., arXiv:2211.00053).

A task is attempted twice, with a request for another look in between, several times over. Every wrong first attempt is then put before every right second one at the
same task, and the second one is imitated, the first one only read. So corrections need not occur in the policy's own episodes: one right second attempt makes an example
of every mistake.

Differs from `star` in the pairing, and by default in a single round. What is learnt was never written after what it now follows, so the policy may mend its own mistakes
less well than those of the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from etude.claim import Arm, Claim, Comparison, reported_seeds
from etude.curation import paired_corrections
from etude.evals.measures import Final
from etude.iterated import RoundConfig
from etude.method import register
from etude.methods.self_correction._corrections import FROM_COPIES, QUICK_START, CorrectionConfig, ImitatedCorrections, repeats_itself
from etude.types import Trajectory


@dataclass
class PairSFTConfig(CorrectionConfig):
    """Options of Pair-SFT."""

    round: RoundConfig = field(default_factory=lambda: RoundConfig(rounds=1, steps_per_round=60))


@register(
    slug="pair-sft",
    name="Pair-SFT",
    family="self_correction",
    paper="2211.00053",
    title="Generating Sequences by Learning to Self-Correct",
    summary="wrong answers paired with right ones to the same task, and the right ones imitated as their corrections",
    config=PairSFTConfig,
    claim=Claim(
        statement="Pairs of any wrong answer and any right one teach correction from far fewer right second attempts than a policy's own corrections do.",
        expectation="From a model that repeats its answers, one round on pairs lifts the greedy accuracy of second answers to held-out tasks by more than 10 points, and "
        "above one round on the policy's own corrections in the same episodes.",
        arms=(
            Arm("pair-sft", settings={"method": "pair-sft"}),
            Arm("own corrections", "star", {"method": "star"}),
        ),
        common={**FROM_COPIES, "rounds": 1, "tasks_per_round": 96, "group_size": 8, "steps_per_round": 40},
        experiment="etude.experiments.second_looks:second_looks",
        budget="100-steps",
        tests=(
            Comparison("gain of second answers", "pair-sft", None, Final("correct@2") - Final("correct@2_first"), margin=0.1),
            Comparison("pairs against own corrections", "pair-sft", "own corrections", Final("correct@2")),
        ),
        preconditions=repeats_itself("pair-sft"),
        tried="On seed 0, from the start that STaR's card tells of (a quarter of its second answers show a check, four of five of these right): 40 steps on the pairs of "
        "96 tasks took second answers from 25.8 to 72.7 %, and first ones from 20.3 to 14.1 %. The other arm was not tried; two rounds of it with 240 tasks came to "
        "90.2 %.",
        seeds=reported_seeds(5),
        quick={**QUICK_START, "tasks_per_round": 8, "steps_per_round": 1, "rounds": 1},
    ),
)
class PairSFT(ImitatedCorrections):
    """Keeps pairs of a wrong attempt and a right one, whoever wrote them."""

    config: PairSFTConfig

    def corrected(self, episodes: Sequence[Trajectory]) -> list[Trajectory]:
        return paired_corrections(episodes, keep_right=self.config.keep_right)
