"""LATR: attempts that branch where the policy hesitates, instead of attempts that happen to differ (arXiv:2510.24302).

Attempts that are sampled token by token are often near copies, which all earn the same and teach nothing. LATR grows a tree instead. Where a second token is nearly
as likely as the first, a branch is opened with it; a few tokens later the branch is held against its parent, and dropped if both say the same again. So the places
of a group go to attempts that differ in more than a word.

Differs from GRPO in how a group is gathered, and in nothing after that. A tree's tokens were not sampled from the policy, so the gradient they give is biased: the
share of each group that comes from the tree (`tree_share`) falls over the run, and the rest is sampled as ever. At a share of 0 it is GRPO to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition, room_to_learn
from etude.config import Count, NonNegative, Share
from etude.errors import InputError
from etude.evals.measures import AtBudget, First
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.rewards.votes import answers_of, different_answers
from etude.rollouts.lookahead import LookaheadPlan, LookaheadRule, alike_by_edits, alike_by_overlap, grow_lookahead
from etude.rollouts.tree import tree_metrics
from etude.rollouts.tree_record import record_of_tree
from etude.types import Group, Metrics, Task


@dataclass
class LATRConfig(GRPOConfig):
    """Options of LATR."""

    tree_share: Share = 1.0
    """Share of each group that comes from the tree at the first step."""
    tree_decay: Share = 0.95
    """What that share is multiplied by after each step."""
    tree_schedule: str = ""
    """Share from given steps on instead, as `0:1,10:0.75,20:0.5,80:0.25,200:0`; steps count from 0."""
    branch_candidates: Annotated[int, Ge(2)] = 2
    """A branch opens with one of so many most likely tokens."""
    branch_probability: Share = 0.1
    """Which has to be likelier than this."""
    branch_gap: Share = 0.6
    """And less than this much less likely than the most likely one."""
    branch_priority: Literal["probability", "order"] = "probability"
    """Who gets the last places: the likelier token, or the earlier branch."""
    pruning: Literal["edits", "overlap", "random", "none"] = "edits"
    """How branches are held against their parents: by edit distance (short answers), by common endings and words in order (long ones), by chance, not at all."""
    lookahead: tuple[Annotated[int, Ge(2)], ...] = (4, 8)
    """Tokens after which they are."""
    prune_edits: Share = 0.4
    """Edit distance, as a share of those tokens, below which a branch is dropped."""
    prune_suffix: Share = 0.2
    """Common ending, as such a share, above which it is."""
    prune_rouge: Share = 0.5
    """ROUGE-L above which it is."""
    prune_rate: Share = 0.5
    """Share of branches that pruning by chance drops."""
    growing_steps: Count = 0
    """Tokens after which the trees are written to their ends by sampling in any case (0: half of what an answer may have)."""
    growing_decay: NonNegative = 0.05
    """By how much the share of taken places at which they count as grown falls over the length of an answer."""
    fill: Literal["copies", "samples"] = "samples"
    """What takes the places that are left then: copies of the first branch, which go on differently, or attempts from the prompt."""
    trunk: Literal["likeliest", "sampled"] = "likeliest"
    """How a branch goes on while the tree grows."""


def share_at(step: int, config: LATRConfig) -> float:
    """The share of a group that comes from the tree at a step, counted from 0.

    Raises InputError for a schedule that cannot be read.
    """
    if not config.tree_schedule:
        return config.tree_share * config.tree_decay**step
    try:
        table = [(int(begin), float(share)) for begin, share in (entry.split(":") for entry in config.tree_schedule.split(","))]
    except ValueError:
        table = []
    begins = [begin for begin, _ in table]
    if not table or begins[0] != 0 or begins != sorted(set(begins)) or not all(0 <= share <= 1 for _, share in table):
        raise InputError(
            f"--tree-schedule is {config.tree_schedule!r}; expected rising steps from 0 on with shares in [0, 1], as 0:1,10:0.75,20:0.5,80:0.25,200:0"
        )
    return next(share for begin, share in reversed(table) if begin <= step)


@register(
    slug="latr",
    name="LATR",
    family="exploration",
    paper="2510.24302",
    title="Lookahead Tree-Based Rollouts for Enhanced Trajectory-Level Exploration in Reinforcement Learning with Verifiable Rewards",
    summary="attempts branch at uncertain tokens, and branches that come back to the same words are dropped",
    config=LATRConfig,
    rollouts="tree",
    claim=Claim(
        statement="Branching at uncertain tokens and dropping branches that say the same again gives attempts that differ more than sampled ones, so that more "
        "groups teach and training gets further on as many attempts.",
        expectation="At the starting policy a group of eight has more different final answers than a sampled one, and more groups have right and wrong attempts; on "
        "the same number of attempts held-out pass@1 ends higher than GRPO's.",
        arms=(
            Arm("latr"),
            Arm("sampling", "latr", {"tree_share": 0.0}),
            Arm("no pruning", "latr", {"pruning": "none"}),
        ),
        common={**ON_TINY, "tasks": "countdown", "tasks_per_step": 32, "group_size": 8, "eval_tasks": 96},
        budget="4k-rollouts",
        tests=(
            Comparison("different answers at the start", "latr", "sampling", First("explore/answers")),
            Comparison("mixed groups at the start", "latr", "sampling", First("signal/groups_with_spread")),
            Comparison("accuracy", "latr", "sampling", AtBudget("eval/pass@1")),
            Comparison("pruning", "latr", "no pruning", First("explore/answers"), role="ablation"),
        ),
        tried="The thresholds, on 96 tasks at the starting policy, groups of 8 (sampling: 7.02 different answers, 79.2 % mixed groups). At 0.15 and 0.4 with copies in "
        "the places that are left 4.48 and 71.9 %, with samples there 7.12 and 89.6 %; at 0.1 and 0.6 7.51 and 91.7 %; at 0.08 and 0.8 with three candidates 7.79 and "
        "82.3 %. Pruning costs here: without it 7.70 at 0.15 and 0.4, and 7.85 against 7.72 at 0.05 and 0.9. In these tasks the uncertain tokens are real decisions "
        "and few branches come back to their parents' words. Training with 16 tasks a step and 3k rollouts on seed 0 ended at 34.0 %, sampling at 29.6 %; on seed 1 the "
        "two were at 24.1 % and 24.7 % after ten steps.",
        preconditions=(
            room_to_learn("latr"),
            Precondition("tokens are uncertain", "latr", First("tree/uncertain"), at_least=3.0, otherwise="hardly anywhere is there a token to branch with"),
        ),
    ),
)
class LATR(GRPO):
    """Differs from GRPO in the rollouts."""

    config: LATRConfig
    overlaps: ClassVar[bool] = True

    def setup(self) -> None:
        super().setup()
        self.require_single_turns("grows trees over answers of a single turn; choose other tasks, or grpo")
        config = self.config
        if not config.lookahead:
            raise InputError("--lookahead is empty; expected at least one number of tokens, or --pruning none")
        share_at(0, config)
        alike = {
            "edits": partial(alike_by_edits, below=config.prune_edits),
            "overlap": partial(alike_by_overlap, suffix=config.prune_suffix, rouge=config.prune_rouge),
        }
        self.rule = LookaheadRule(
            candidates=config.branch_candidates,
            least_probability=config.branch_probability,
            largest_gap=config.branch_gap,
            priority=config.branch_priority,
            windows=config.lookahead,
            alike=alike.get(config.pruning),
            random_share=config.prune_rate if config.pruning == "random" else None,
            decay=config.growing_decay,
            force=config.growing_steps or max(1, self.params.max_new_tokens // 2),
            fill=config.fill,
            sampled_trunk=config.trunk == "sampled",
        )

    def rollout(self, tasks: Sequence[Task], round_: int = 0) -> list[Group]:
        size = self.config.group_size
        width = int(share_at(self.run.step - 1, self.config) * size + 0.5)
        trees, self.grown = grow_lookahead(
            self.policy,
            [LookaheadPlan(task, width, size - width) for task in tasks],
            self.rule,
            self.params,
            stream=lambda task, place, sample: self.stream(task, place, sample, round_),
            rng=self.run.rng(self.run.step, "pruning", round_),
            ledger=self.run.ledger,
        )
        return [Group(task.id, tree.trajectories(), {"tree": tree}) for task, tree in zip(tasks, trees, strict=True)]

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        groups = super().collect(tasks)
        if self.run.config.save_trajectories and self.grown:
            decode = self.policy.decode_all
            self.run.save_trees(self.run.step, [record_of_tree(group, decode, self.task_set.answer_in) for group in groups[:1]])
        return groups

    def credit(self, groups: Sequence[Group]) -> Metrics:
        answers = [answers_of(group.trajectories, self.task_set.answer_in) for group in groups]
        return (
            super().credit(groups)
            | tree_metrics([group.tags["tree"] for group in groups])
            | self.grown
            | {
                "tree/share": share_at(self.run.step - 1, self.config),
                "explore/answers": different_answers(answers),
            }
        )
