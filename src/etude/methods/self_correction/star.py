"""STaR over corrections: imitate one's own episodes in which a wrong answer was mended (after Zelikman et al., arXiv:2203.14465).

A task is attempted twice, with a request for another look in between. Of the policy's own episodes those are kept that end with a wrong attempt and a right one, and the
last attempt is imitated, the earlier ones only read. Then again, with the policy that came out of it.

This is how SCoRe's authors applied STaR, as a method to do better than. What they saw goes wrong in it is worth watching for: where few episodes mend anything, there is
little to learn from; and a policy that is only shown mistakes to mend comes to change right answers too, which `keep_right` is against.
"""

from __future__ import annotations

from collections.abc import Sequence

from etude.curation import corrections
from etude.method import register
from etude.methods.self_correction._corrections import CorrectionConfig, ImitatedCorrections
from etude.types import Trajectory


@register(
    slug="star",
    name="STaR on corrections",
    family="self_correction",
    paper="2203.14465",
    title="STaR: Bootstrapping Reasoning With Reasoning",
    summary="rounds of imitating one's own second attempts that mended a wrong first one",
    config=CorrectionConfig,
    claim=None,
)
class STaR(ImitatedCorrections):
    """Keeps corrections that the policy made itself."""

    def corrected(self, episodes: Sequence[Trajectory]) -> list[Trajectory]:
        return corrections(episodes, keep_right=self.config.keep_right)
