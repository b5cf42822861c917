"""STaR over corrections: imitate one's own episodes in which a wrong answer was mended (after Zelikman et al., arXiv:2203.14465).

A task is attempted twice, with a request for another look in between. Of the policy's own episodes those are kept that end with a wrong attempt and a right one, and the
last attempt is imitated, the earlier ones only read. Then again, with the policy that came out of it.

This is how SCoRe's authors applied STaR, as a method to do better than. What they saw goes wrong in it is worth watching for: where few episodes mend anything, there is
little to learn from; and a policy that is only shown mistakes to mend comes to change right answers too, which `keep_right` is against.
"""

from __future__ import annotations

from collections.abc import Sequence

from etude.claim import Arm, Claim, Comparison, reported_seeds
from etude.curation import corrections
from etude.evals.measures import Final
from etude.method import register
from etude.methods.self_correction._corrections import FROM_COPIES, QUICK_START, CorrectionConfig, ImitatedCorrections, repeats_itself
from etude.types import Trajectory


@register(
    slug="star",
    name="STaR on corrections",
    family="self_correction",
    paper="2203.14465",
    title="STaR: Bootstrapping Reasoning With Reasoning",
    summary="rounds of imitating one's own second attempts that mended a wrong first one",
    config=CorrectionConfig,
    claim=Claim(
        statement="Imitating one's own corrections teaches second attempts to mend mistakes, and right answers after right ones keep it from spoiling them.",
        expectation="From a model that repeats its answers, two rounds lift the greedy accuracy of second answers to held-out tasks by more than 10 points.",
        arms=(
            Arm("star", settings={"method": "star"}),
            Arm("with right ones", "star", {"method": "star", "keep_right": True}),
        ),
        common={**FROM_COPIES, "rounds": 2, "tasks_per_round": 240, "group_size": 8, "steps_per_round": 20},
        experiment="etude.experiments.second_looks:second_looks",
        budget="100-steps",
        tests=(
            Comparison("gain of second answers", "star", None, Final("correct@2") - Final("correct@2_first"), margin=0.1),
            Comparison("right answers are left alone", "with right ones", "star", Final("broken"), better="lower", role="ablation"),
        ),
        preconditions=repeats_itself("star"),
        tried="On seed 0, from another start: 40 steps of 64 lessons in checking at 2e-3, then 24 of 32 with copies=0.95, misses=0.5 at 1e-3. It repeats every answer when "
        "it is greedy (10.2 % right both times, 128 tasks); at temperature 1 it shows work in 1.8 to 2.0 % of its second answers, and one in five to one in three of "
        "those are right. One round of 240 tasks and 20 steps from there took second answers to 34.4 %, first ones to 28.9 % (mended 28.9 %, spoilt 23.4 %). Run on "
        "the reported seeds (1000 to 1004) with 40 skill steps and copies=0.95 the claim was void: 55 % of the checks that the start writes were right, and second "
        "answers lost 3.2 points. Starts, on seed 0: after 160 skill steps without slips, copies=0.9 left checks in 1 % of second answers and half of these right; "
        "copies=0.8, 40 steps falling from 5e-4, in 26 %, of which 80 % are right, while greedy second answers differ from the first in 6 %. From there two rounds "
        "took second answers from 25.8 to 90.2 % and first ones from 20.3 to 23.8 % (spoilt 14.7 % of the right ones).",
        seeds=reported_seeds(5),
        quick={**QUICK_START, "tasks_per_round": 8, "steps_per_round": 1, "rounds": 2},
    ),
)
class STaR(ImitatedCorrections):
    """Keeps corrections that the policy made itself."""

    def corrected(self, episodes: Sequence[Trajectory]) -> list[Trajectory]:
        return corrections(episodes, keep_right=self.config.keep_right)
