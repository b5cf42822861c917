"""Trees of attempts: what branches share, what is dropped with what, what they cost; lookahead and entropy forks on the embedded model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rollouts import group_rollouts
from etude.rollouts.entropy_forks import ForkPlan, answer_start, balanced, grow_entropy_forks, highest_entropy, random_positions
from etude.rollouts.lookahead import LookaheadPlan, LookaheadRule, grow_lookahead, grown_enough, uncertain_tokens
from etude.rollouts.similarity import edit_distance
from etude.rollouts.tree import Branch, Growth, Tree, tree_metrics
from etude.rollouts.tree_record import record_of_tree
from etude.tasks.builtin.countdown import Countdown
from etude.types import Alternatives, Group, Message, Task, trajectories_of

TASKS = Countdown()
PARAMS = SamplingParams(max_new_tokens=30)
# So open that every tree fills its places and prunes some of them again.
OPEN = LookaheadRule(candidates=4, least_probability=0.02, largest_gap=0.95, force=14)


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return LanguageModel.load("tiny", device="cpu", dtype="float32")


def tasks(count: int) -> list[Task]:
    return [TASKS.train_task(0, i) for i in range(count)]


def stream(task: Task, place: int, sample: int) -> int:
    return stream_key("test", task.id, place, sample)


def lookahead(policy: LanguageModel, rule: LookaheadRule, *, width: int = 6, sampled: int = 2, count: int = 6) -> tuple[list[Tree], dict[str, float], Ledger]:
    ledger = Ledger()
    plans = [LookaheadPlan(task, width, sampled) for task in tasks(count)]
    trees, metrics = grow_lookahead(policy, plans, rule, PARAMS, stream=stream, rng=Random(0), ledger=ledger)
    return trees, metrics, ledger


def forks(policy: LanguageModel, plan: ForkPlan, *, count: int = 4, **options: Any) -> tuple[list[Tree], Ledger]:
    ledger = Ledger()
    given: dict[str, Any] = {"choose": lambda _task, _root, entropies, n: highest_entropy(entropies, n), "forkable": lambda root: len(root.tokens) - 1}
    return grow_entropy_forks(policy, tasks(count), plan, PARAMS, stream=stream, ledger=ledger, **{**given, **options}), ledger


def check_tree(tree: Tree, policy: LanguageModel) -> None:
    """What holds for every tree, whatever rule grew it."""
    attempts = tree.trajectories()
    for branch, attempt in zip(tree.kept, attempts, strict=True):
        assert attempt.tokens == branch.tokens
        assert len(attempt.segments[0].logprobs) == len(attempt.segments[0].entropies) == len(attempt.tokens)
        if attempt.parent is not None:
            assert attempt.parent is attempts[tree.kept.index(branch.parent)] if branch.parent else False
            assert attempt.tokens[: attempt.fork] == attempt.parent.tokens[: attempt.fork]
            assert attempt.segments[0].logprobs[: attempt.fork] == attempt.parent.segments[0].logprobs[: attempt.fork]
    for branch in tree.pruned:
        assert all(other.pruned for other in tree.branches if other.parent is branch)
    scored = policy.sampler.score([tree.prompt] * len(attempts), [t.tokens for t in attempts])
    for attempt, values in zip(attempts, scored, strict=True):
        assert np.allclose(attempt.segments[0].logprobs, values, atol=1e-3)


def check_ledger(trees: Sequence[Tree], ledger: Ledger) -> None:
    """Each generated token is counted once, whether its branch was kept or not."""
    assert ledger.generated_tokens == sum(tree.generated for tree in trees)
    assert ledger.rollouts == ledger.model_calls["policy"] == sum(len(tree.kept) for tree in trees)
    assert ledger.generated_tokens < sum(len(b.tokens) for tree in trees for b in tree.branches)


# Trees by hand


def branch_of(tree: Tree, parent: Branch | None, fork: int, length: int) -> Branch:
    branch = Branch(tree, parent, fork, len(tree.branches), len(tree.branches), [0] * length, [0.0] * length)
    tree.branches.append(branch)
    return branch


def test_shared_tokens_count_once() -> None:
    tree = Tree(Task("t", (Message("user", "x"),)), [1])
    root = branch_of(tree, None, 0, 200)
    for fork in (40, 40, 120, 120):
        branch_of(tree, root, fork, 200)
    # 200 + 2 x 160 + 2 x 80, where five separate attempts take 1000.
    assert tree.generated == 680
    assert tree_metrics([tree])["tree/leaves_per_100_tokens"] == pytest.approx(500 / 680)
    assert tree_metrics([tree])["tree/opened"] == 4


@pytest.mark.parametrize(("plan", "leaves", "share"), [(ForkPlan(12, 2, 2), 60, 0.6), (ForkPlan(6, 3, 2), 42, 4 / 7), (ForkPlan(5, 0, 2), 5, 1.0)])
def test_what_forks_cost(plan: ForkPlan, leaves: int, share: float) -> None:
    assert plan.leaves == leaves
    assert plan.share_of_tokens == pytest.approx(share)
    random = Random(0)
    even = [1 + sum(plan.branches * (1 - random.random()) for _ in range(plan.forks)) for _ in range(20_000)]
    assert sum(even) / len(even) / plan.per_root == pytest.approx(share, abs=0.005)


# The rule of LATR


def test_which_tokens_may_open_a_branch() -> None:
    options = Alternatives([7, 8, 9], [math.log(p) for p in (0.45, 0.35, 0.2)])
    rule = LookaheadRule(least_probability=0.25, largest_gap=0.15)
    # The gap of the second is 0.10; the third is likely enough neither way.
    assert [(round(p, 2), token) for p, token in uncertain_tokens(options, 7, rule)] == [(0.35, 8)]
    assert uncertain_tokens(options, 7, replace(rule, largest_gap=0.05)) == []
    assert [t for _, t in uncertain_tokens(options, 7, replace(rule, least_probability=0.1, largest_gap=0.3))] == [8, 9]
    # Where another token was drawn, the most likely one is the other way.
    assert [t for _, t in uncertain_tokens(options, 8, rule)] == [7]


def test_when_trees_are_grown() -> None:
    rule = LookaheadRule(windows=(4, 8), decay=0.05, force=24)

    def grown(widths: list[tuple[int, int, bool]], ages: list[int], step: int) -> bool:
        return grown_enough(widths, ages, step=step, limit=100, rule=rule)

    assert grown([(8, 8, False), (8, 8, False)], [8, 9], 10)
    assert not grown([(8, 8, False), (8, 8, False)], [8, 7], 10)
    assert not grown([(8, 8, False), (7, 8, False)], [9], 10)
    # One whose branches have all ended is as wide as it will get.
    assert grown([(8, 8, False), (3, 8, True)], [9], 10)
    # 15 of 16 places are 0.9375; what is asked for falls from 0.98 by 0.0005 a step.
    assert grown_enough([(15, 16, False)], [9], step=90, limit=100, rule=replace(rule, force=200))
    assert not grown_enough([(15, 16, False)], [9], step=80, limit=100, rule=replace(rule, force=200))
    assert grown([(1, 8, False)], [], 24)


def test_lookahead_trees_hold_together(policy: LanguageModel) -> None:
    trees, metrics, ledger = lookahead(policy, OPEN)
    for tree in trees:
        assert len(tree.kept) == 8
        assert [b.opened == "sampled" for b in tree.kept] == [False] * 6 + [True] * 2
        check_tree(tree, policy)
    check_ledger(trees, ledger)
    assert metrics["tree/uncertain"] > 1
    assert sum(len(tree.pruned) for tree in trees) > 0


def test_branches_open_with_the_likeliest_other_token_and_close_when_they_say_the_same(policy: LanguageModel) -> None:
    trees, _, _ = lookahead(policy, OPEN)
    looked_at = 0
    for tree in trees:
        for branch in tree.branches:
            parent = branch.parent
            if parent is None or not branch.opened.startswith("p "):
                continue
            at = branch.fork
            assert branch.tokens[at] != parent.tokens[at]
            (ours,), (theirs,) = policy.sampler.score([tree.prompt + branch.tokens[:at]] * 2, [[branch.tokens[at]], [parent.tokens[at]]])
            assert float(branch.opened.removeprefix("p ")) == pytest.approx(math.exp(ours), abs=0.006)
            assert OPEN.least_probability < math.exp(ours) <= math.exp(theirs) + 1e-6
            if branch.pruned.startswith("edit"):
                looked_at += 1
                assert branch.age in OPEN.windows
                assert edit_distance(branch.tokens[at:], parent.tokens[at : at + branch.age]) < 0.4
    assert looked_at > 0


def test_pruning_makes_room_for_later_forks(policy: LanguageModel) -> None:
    pruned, _, _ = lookahead(policy, OPEN, sampled=0)
    kept, metrics, _ = lookahead(policy, replace(OPEN, alike=None), sampled=0)
    assert not any(tree.pruned for tree in kept)
    assert metrics["tree/looked_at"] > 0

    def forks_of(trees: Sequence[Tree]) -> list[int]:
        return [b.fork for tree in trees for b in tree.branches if b.opened.startswith("p ")]

    # Without it the first forks take all places and keep them; with it more are tried, and later ones.
    assert len(forks_of(kept)) == 5 * len(kept)
    assert len(forks_of(pruned)) > len(forks_of(kept))
    assert max(forks_of(pruned)) > max(forks_of(kept))
    by_chance, _, _ = lookahead(policy, replace(OPEN, random_share=1.0), sampled=0)
    assert {b.pruned.split(" after")[0] for tree in by_chance for b in tree.pruned} <= {"by chance", "with its parent"}
    assert any(tree.pruned for tree in by_chance)


def test_places_that_are_left_are_filled(policy: LanguageModel) -> None:
    shut = replace(OPEN, least_probability=1.0, force=5)
    for fill, why in (("copies", "copy"), ("samples", "sampled in a place that was left")):
        trees, metrics, ledger = lookahead(policy, replace(shut, fill=fill), width=4)  # type: ignore[arg-type]
        assert metrics["tree/filled"] == 3
        for tree in trees:
            assert [b.opened for b in tree.kept] == ["most likely tokens", why, why, why, "sampled", "sampled"]
            assert {b.fork for b in tree.kept[1:4]} == ({5} if fill == "copies" else {0})
        assert ledger.rollouts == 6 * len(trees)


def test_the_tree_does_not_depend_on_what_else_is_drawn(policy: LanguageModel) -> None:
    alone, _, _ = lookahead(policy, OPEN, sampled=0)
    beside, _, _ = lookahead(policy, OPEN, sampled=3)
    assert [[b.tokens for b in tree.kept] for tree in alone] == [[b.tokens for b in tree.kept[:6]] for tree in beside]


def test_without_a_tree_it_is_a_group_of_samples(policy: LanguageModel) -> None:
    trees, metrics, ledger = lookahead(policy, OPEN, width=0, sampled=4)
    plain = Ledger()
    groups = group_rollouts(policy, tasks(6), TASKS, PARAMS, group_size=4, stream=stream, ledger=plain)
    assert [t.tokens for tree in trees for t in tree.trajectories()] == [t.tokens for t in trajectories_of(groups)]
    assert metrics == {}
    assert ledger == plain


def test_a_sampled_trunk_branches_towards_the_likelier_token_too(policy: LanguageModel) -> None:
    trees, _, ledger = lookahead(policy, replace(OPEN, sampled_trunk=True))
    for tree in trees:
        check_tree(tree, policy)
    check_ledger(trees, ledger)
    likelier = [b for tree in trees for b in tree.branches if b.parent is not None and b.opened.startswith("p ") and float(b.opened.removeprefix("p ")) > 0.5]
    assert likelier


# The forks of ETTRL


def test_entropy_forks_hold_together(policy: LanguageModel) -> None:
    plan = ForkPlan(3, 2, 2)
    trees, ledger = forks(policy, plan)
    for tree in trees:
        assert len(tree.kept) == plan.leaves == 15
        check_tree(tree, policy)
        for root in range(3):
            first, *rest = tree.kept[5 * root : 5 * root + 5]
            assert first.parent is None
            assert all(b.parent is first for b in rest)
            highest = highest_entropy(first.entropies[:-1], 2)
            assert [b.fork for b in rest] == [highest[0], highest[0], highest[1], highest[1]]
            # Drawn anew: nothing but chance makes the token at the fork the same.
            assert all(b.entropies[b.fork] == pytest.approx(first.entropies[b.fork], abs=1e-4) for b in rest)
    assert any(b.tokens != b.parent.tokens for tree in trees for b in tree.kept if b.parent)
    check_ledger(trees, ledger)


def test_roots_are_what_separate_attempts_would_have_been(policy: LanguageModel) -> None:
    trees, _ = forks(policy, ForkPlan(2, 2, 2), count=3)
    alone, _ = forks(policy, ForkPlan(2, 2, 2), count=1)
    assert [b.tokens for b in alone[0].kept] == [b.tokens for b in trees[0].kept]
    groups = group_rollouts(policy, tasks(3), TASKS, PARAMS, group_size=2, stream=lambda task, place, s: stream(task, place, 5 * s), ledger=Ledger())
    assert [[tree.kept[0].tokens, tree.kept[5].tokens] for tree in trees] == [[t.tokens for t in g.trajectories] for g in groups]


def test_a_root_without_a_place_to_fork_is_made_up_for(policy: LanguageModel) -> None:
    trees, ledger = forks(policy, ForkPlan(2, 2, 2), forkable=lambda root: 1)
    for tree in trees:
        assert [b.opened for b in tree.kept[1:5]] == [tree.kept[1].opened] * 2 + ["no place to fork"] * 2
        assert [b.fork for b in tree.kept] == [0] * 10
    assert ledger.rollouts == 40


def test_positions_with_the_highest_entropy() -> None:
    assert highest_entropy([0.1, 0.9, 0.3, 0.9], 3) == [1, 3, 2]
    assert highest_entropy([0.1], 3) == [0]
    assert sorted(random_positions([0.0] * 4, 9, Random(0))) == [0, 1, 2, 3]
    counts = np.bincount([i for seed in range(600) for i in random_positions([9.0, 0, 0, 0], 2, Random(seed))], minlength=4)
    assert counts.min() > 240


@pytest.mark.parametrize(("answer", "start"), [("7", 4), ("12", 2), (None, 5), ("99", 5)])
def test_where_the_final_answer_starts(answer: str | None, start: int) -> None:
    texts = ["3", "+", "12", "=", "7"]
    assert answer_start(range(5), answer, lambda tokens: "".join(texts[t] for t in tokens)) == start


def test_what_is_trained_is_spread_over_the_roots(policy: LanguageModel) -> None:
    (tree, *_), _ = forks(policy, ForkPlan(3, 2, 2), count=1)
    chosen = balanced(tree, 7, Random(1))
    assert chosen == sorted(set(chosen))
    assert sorted(np.bincount([i // 5 for i in chosen]).tolist()) == [2, 2, 3]
    assert balanced(tree, 99, Random(1)) == list(range(15))
    assert {tuple(balanced(tree, 3, Random(seed))) for seed in range(20)} != {(0, 5, 10)}


# Growing and recording


def test_what_still_runs_is_taken_out_after_an_error(policy: LanguageModel) -> None:
    ledger = Ledger()

    def disturbed() -> None:
        with Growth(policy, ledger) as growth:
            root = growth.plant(growth.tree(tasks(1)[0]), PARAMS, stream=1, why="root", keep=True)
            growth.step(token_events=True)
            growth.fork(root, 1, stream=2, why="fork")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        disturbed()
    assert policy.sampler.pending == 0
    assert ledger == Ledger()


def test_a_branch_is_dropped_with_all_that_grew_out_of_it(policy: LanguageModel) -> None:
    with Growth(policy, Ledger()) as growth:
        tree = growth.tree(tasks(1)[0])
        root = growth.plant(tree, PARAMS, stream=1, why="root", keep=True)
        growth.step(token_events=True)
        child = growth.fork(root, 1, stream=2, why="fork", keep=True)
        growth.step(token_events=True)
        grandchild = growth.fork(child, 1, stream=3, why="fork")
        sibling = growth.fork(root, 1, stream=4, why="fork")
        growth.prune(child, "too alike")
        assert [b.pruned for b in (root, child, grandchild, sibling)] == ["", "too alike", "with its parent", ""]
        assert len(list(growth.finish())) == 2
    assert len(tree.trajectories()) == 2


def test_a_record_has_what_a_reader_needs_to_draw_it(policy: LanguageModel) -> None:
    (tree, *_), _, _ = lookahead(policy, OPEN)
    group = Group("t", tree.trajectories(), {"tree": tree, "label": "7"})
    for trajectory in group.trajectories:
        trajectory.rewards, trajectory.reward = {"correct": 1.0}, 0.5
    record = record_of_tree(group, policy.decode_all, TASKS.answer_in)
    assert (record["task_id"], record["label"]) == (tree.task.id, "7")
    by_number = {b["number"]: b for b in record["branches"]}
    assert len(by_number) == len(tree.branches)
    assert {b["number"] for b in record["branches"] if b["pruned"]} == {b.number for b in tree.pruned}

    def whole(branch: dict[str, Any]) -> list[str]:
        before = whole(by_number[branch["parent"]])[: branch["fork"]] if branch["parent"] is not None else []
        return before + branch["texts"]

    for branch in tree.branches:
        entry = by_number[branch.number]
        assert "".join(whole(entry)) == policy.decode_all(branch.tokens)
        assert len(entry["texts"]) == len(entry["entropies"]) == entry["tokens"]
        assert ("reward" in entry) == (not branch.pruned)
