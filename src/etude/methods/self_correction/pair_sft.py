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

from etude.curation import paired_corrections
from etude.iterated import RoundConfig
from etude.method import register
from etude.methods.self_correction._corrections import CorrectionConfig, ImitatedCorrections
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
    claim=None,
)
class PairSFT(ImitatedCorrections):
    """Keeps pairs of a wrong attempt and a right one, whoever wrote them."""

    config: PairSFTConfig

    def corrected(self, episodes: Sequence[Trajectory]) -> list[Trajectory]:
        return paired_corrections(episodes, keep_right=self.config.keep_right)
