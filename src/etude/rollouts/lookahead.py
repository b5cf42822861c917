"""Trees that branch at uncertain tokens, look a few tokens ahead and drop what came back to the same words (LATR, arXiv:2510.24302).

At first nothing is sampled. Every branch takes its most likely token, and where another token is nearly as likely, a branch with that one is opened beside it. A
branch that after a window of tokens still says much the same as its parent is dropped, which makes room for later ones. When there are enough branches, or it has
taken long enough, each is written to its end by ordinary sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rollouts.similarity import edit_distance, rouge_l, suffix_match
from etude.rollouts.tree import Branch, Growth, Tree
from etude.types import Alternatives, Metrics, Task

Alike = Callable[[Sequence[int], Sequence[int]], str]
"""Why two spans of tokens count as the same, or nothing where they do not."""
FULL = 0.98
"""Share of all places that has to be taken for the trees to count as grown, at the start."""


def alike_by_edits(first: Sequence[int], second: Sequence[int], *, below: float) -> str:
    """Alike when the edit distance, as a share of the length, is below a bound (the paper's test on short answers: 0.4)."""
    distance = edit_distance(first, second)
    return f"edit distance {distance:.2f}" if distance < below else ""


def alike_by_overlap(first: Sequence[int], second: Sequence[int], *, suffix: float, rouge: float) -> str:
    """Alike when they end alike or have much in common in order (its test on long answers: more than 0.2 of the suffix, or ROUGE-L above 0.5)."""
    ending, common = suffix_match(first, second), rouge_l(first, second)
    if ending > suffix:
        return f"suffix match {ending:.2f}"
    return f"ROUGE-L {common:.2f}" if common > rouge else ""


@dataclass(frozen=True)
class LookaheadRule:
    """When branches open, close and are finished.

    candidates: a branch may open with one of so many most likely tokens (m). least_probability: it has to be likelier than this (tau_abs). largest_gap: and less
    than this much less likely than the most likely one (tau_rel). priority: who gets the last places, the likelier token or the earlier branch.
    windows: lengths at which a branch is held against its parent (r). alike: the comparison; None prunes nothing. random_share: prune this share of the branches
    that are looked at, whatever they say, instead.
    decay: how fast the share of taken places that counts as full falls over the length of an answer. force: step at which growing ends in any case.
    sampled_trunk: draw the branches' own tokens instead of taking the most likely one. fill: what takes the places that are left when growing ends, copies of the
    first branch that has not ended or attempts from the prompt.
    """

    candidates: int = 2
    least_probability: float = 0.1
    largest_gap: float = 0.6
    priority: Literal["probability", "order"] = "probability"
    windows: tuple[int, ...] = (4, 8)
    alike: Alike | None = field(default=lambda a, b: alike_by_edits(a, b, below=0.4))
    random_share: float | None = None
    decay: float = 0.05
    force: int = 24
    sampled_trunk: bool = False
    fill: Literal["copies", "samples"] = "samples"


@dataclass(frozen=True)
class LookaheadPlan:
    """How one task is tried: `width` attempts from the tree and `sampled` ordinary ones."""

    task: Task
    width: int
    sampled: int


@dataclass(eq=False)
class _Crown:
    """The part of a tree that the rule grows, with what it counts."""

    tree: Tree
    place: int
    width: int
    stream: int
    uncertain: int = 0
    looked_at: int = 0
    filled: int = 0
    branches: list[Branch] = field(default_factory=list)

    @property
    def kept(self) -> list[Branch]:
        return [b for b in self.branches if not b.pruned]

    def next_stream(self) -> int:
        """Random numbers of the next branch while it grows, for a rule that draws its tokens; once handed over it has others."""
        return stream_key(self.stream, "growing", len(self.branches))

    @property
    def over(self) -> bool:
        return not any(b.running for b in self.kept)


def uncertain_tokens(options: Alternatives, taken: int, rule: LookaheadRule) -> list[tuple[float, int]]:
    """(probability, token) of the alternatives that a branch may open with: likely enough by themselves, and not much less likely than the most likely one."""
    probabilities = [math.exp(value) for value in options.logprobs]
    return [
        (p, token)
        for p, token in zip(probabilities, options.tokens, strict=True)
        if token != taken and p > rule.least_probability and probabilities[0] - p < rule.largest_gap
    ]


def grown_enough(widths: Sequence[tuple[int, int, bool]], ages: Sequence[int], *, step: int, limit: int, rule: LookaheadRule) -> bool:
    """Whether all trees together are grown, at a step of at most `limit`.

    widths: (branches, places, whether all of them have ended) of each tree; one that has ended counts as full. ages: of the branches that still grow, roots
    left out. Either the places are taken, but for a small share that grows with time, and every branch has stood its last comparison, or it has taken too long.
    """
    if step >= rule.force:
        return True
    places = sum(width for _, width, _ in widths)
    taken = sum(width if over else min(count, width) for count, width, over in widths)
    return taken >= (FULL - rule.decay * step / limit) * places and all(age >= max(rule.windows) for age in ages)


def grow_lookahead(
    policy: LanguageModel,
    plans: Sequence[LookaheadPlan],
    rule: LookaheadRule,
    params: SamplingParams,
    *,
    stream: Callable[[Task, int, int], int],
    rng: Random,
    ledger: Ledger,
) -> tuple[list[Tree], Metrics]:
    """One tree for each plan, with `width + sampled` attempts: those of the rule first. Ordinary attempts are drawn in the same batch.

    stream(task, place, sample) names the random numbers of attempt `sample` at `plans[place]`. rng: only for pruning at random.
    Also returns what the rule did, as means over the trees that it grew (`tree/filled`: places that were left at the end; `tree/uncertain`: positions of the unforked
    branch at which another one might have opened; `tree/looked_at`: comparisons; `tree/growing_steps`), nothing where it grew none.
    """
    growing = replace(params, alternatives=rule.candidates, top_k=0, top_p=1.0, temperature=1.0 if rule.sampled_trunk else 0.0)
    with Growth(policy, ledger) as growth:
        crowns: list[_Crown] = []
        for place, plan in enumerate(plans):
            tree = growth.tree(plan.task)
            if plan.width:
                crown = _Crown(tree, place, plan.width, stream(plan.task, place, 0))
                crown.branches.append(growth.plant(tree, growing, stream=crown.next_stream(), why="most likely tokens", keep=True))
                crowns.append(crown)
            for sample in range(plan.width, plan.width + plan.sampled):
                growth.plant(tree, params, stream=stream(plan.task, place, sample), why="sampled")
        step = 0
        while not _done(crowns, step, params, rule):
            step += 1
            grown = set(growth.step(token_events=True))
            for crown in crowns:
                # What opened in the last step would be handed over before anything had looked at it.
                _grow(growth, crown, grown, rule, rng, opens=step < rule.force)
        for crown in crowns:
            _hand_over(growth, crown, rule, params, stream)
        for _ in growth.finish():
            pass
    for crown in crowns:
        _rule_first(crown)
    return growth.trees, _metrics(crowns, step)


def _done(crowns: Sequence[_Crown], step: int, params: SamplingParams, rule: LookaheadRule) -> bool:
    if all(crown.over for crown in crowns):
        return True
    widths = [(len(crown.kept), crown.width, crown.over) for crown in crowns]
    ages = [b.age for crown in crowns for b in crown.kept if b.parent is not None and b.running]
    return grown_enough(widths, ages, step=step, limit=params.max_new_tokens, rule=rule)


def _grow(growth: Growth, crown: _Crown, grown: set[Branch], rule: LookaheadRule, rng: Random, *, opens: bool) -> None:
    """Open and prune a tree's branches after a step in which `grown` got a token."""
    now = [b for b in crown.kept if b in grown]
    if opens:
        _open(growth, crown, now, rule)
    for branch in now:
        if not branch.pruned and (why := _why_prune(crown, branch, rule, rng)):
            growth.prune(branch, f"{why} after {branch.age} tokens")
    for branch in now:
        if not branch.running:
            growth.let_go(branch)


def _open(growth: Growth, crown: _Crown, grown: Sequence[Branch], rule: LookaheadRule) -> None:
    wanted: list[tuple[float, Branch, int]] = []
    for branch in grown:
        # A branch needs room for its own first token in the context.
        if branch.alternatives is None or len(crown.tree.prompt) + len(branch.tokens) >= growth.policy.context_length:
            continue
        found = uncertain_tokens(branch.alternatives, branch.tokens[-1], rule)
        wanted += [(p, branch, token) for p, token in found]
        crown.uncertain += int(bool(found) and branch is crown.branches[0])
    if rule.priority == "probability":
        wanted.sort(key=lambda entry: -entry[0])
    places = max(0, crown.width - len(crown.kept))
    crown.tree.suppressed += len(wanted[places:])
    for probability, branch, token in wanted[:places]:
        at = len(branch.tokens) - 1
        crown.branches.append(growth.fork(branch, at, take=token, stream=crown.next_stream(), why=f"p {probability:.2f}", keep=True))


def _why_prune(crown: _Crown, branch: Branch, rule: LookaheadRule, rng: Random) -> str:
    """Why a branch is to be dropped now, if it is: it is as old as one of the windows and, since it left, says what its parent says."""
    parent, age = branch.parent, branch.age
    if parent is None or age not in rule.windows or not branch.running:
        return ""
    end = branch.fork + age
    if len(parent.tokens) < end or (not parent.running and len(parent.tokens) == end):
        # The parent came to its end within the window: an ending is no coming back.
        return ""
    crown.looked_at += 1
    if rule.random_share is not None:
        return "by chance" if rng.random() < rule.random_share else ""
    return rule.alike(branch.tokens[branch.fork :], parent.tokens[branch.fork : end]) if rule.alike is not None else ""


def _hand_over(growth: Growth, crown: _Crown, rule: LookaheadRule, params: SamplingParams, stream: Callable[[Task, int, int], int]) -> None:
    """Let every branch be written to its end by sampling, and fill the places that are left.

    Copies of a branch go their own ways from there on. A branch that has ended would be copied to the last token: where all have, attempts start at the prompt.
    """
    task, tree = crown.tree.task, crown.tree
    first = next((b for b in crown.kept if b.running), None) if rule.fill == "copies" else None
    taken = len(crown.kept)
    for sample in range(taken, crown.width):
        key = stream(task, crown.place, sample)
        if first is not None:
            crown.branches.append(growth.fork(first, len(first.tokens), stream=key, params=params, why="copy"))
        else:
            crown.branches.append(growth.plant(tree, params, stream=key, why="sampled in a place that was left"))
    crown.filled = max(0, crown.width - taken)
    for sample, branch in enumerate(crown.kept[:taken]):
        if branch.running:
            growth.go_on(branch, params, stream=stream(task, crown.place, sample))


def _rule_first(crown: _Crown) -> None:
    """Order a tree's branches: the rule's, as they were opened, then the ordinary attempts."""
    grown = set(crown.branches)
    crown.tree.branches.sort(key=lambda b: (b not in grown, b.number))


def _metrics(crowns: Sequence[_Crown], steps: int) -> Metrics:
    if not crowns:
        return {}
    count = len(crowns)
    return {
        "tree/filled": sum(c.filled for c in crowns) / count,
        "tree/uncertain": sum(c.uncertain for c in crowns) / count,
        "tree/looked_at": sum(c.looked_at for c in crowns) / count,
        "tree/growing_steps": float(steps),
    }
