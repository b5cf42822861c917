"""XRPO, DARS and DARS-B: where rollouts go, what unsolved tasks are shown, and what is learnt, on the embedded model with rewards whose outcome is known."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from test_baselines import Known, Mixed, advantages, attempt, ready

from etude.errors import InputError
from etude.objectives import PolicyObjective, sequence_ratio
from etude.rollouts.allocation import hardness_weighted
from etude.tasks.base import prompt_key
from etude.tasks.builtin import builtin_task_sets
from etude.types import Group, Message, Task, trajectories_of


class Rare(Known):
    """Every task is solved by about one attempt in eight, by a hash of what was written."""

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": float(zlib.crc32(text.encode()) % 8 == 0)}


class Hopeless(Known):
    """Nothing is right."""

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": 0.0}


def weights(method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.policy.model.parameters()])


OFF = {"adaptive": False, "seeding": False, "sharpening": False, "correction": "none"}


# XRPO


def test_without_its_parts_xrpo_is_grpo_attempt_for_attempt(tmp_path: Path) -> None:
    grpo = ready("grpo", tmp_path, Known(), group_size=8, tasks_per_step=3, lr=1e-3)
    plain = ready("xrpo", tmp_path, Known(), group_size=8, tasks_per_step=3, lr=1e-3, **OFF)
    tasks = grpo.curriculum.next(3)
    ours, theirs = plain.collect(tasks), grpo.collect(tasks)
    assert [[(t.tokens, t.reward) for t in g.trajectories] for g in ours] == [[(t.tokens, t.reward) for t in g.trajectories] for g in theirs]
    for method, groups in ((plain, ours), (grpo, theirs)):
        method.credit(groups)
        method.update(groups)
    assert torch.equal(weights(plain), weights(grpo))
    assert plain.run.ledger.generated_tokens == grpo.run.ledger.generated_tokens


def test_rollouts_go_to_tasks_with_spread_at_the_same_total(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, Known(), group_size=8, tasks_per_step=6, seeding=False, exploration=0.0)
    groups = method.collect(method.curriculum.next(6))
    sizes = {g.key: len(g) for g in groups}
    assert sum(sizes.values()) == method.run.ledger.rollouts == 48
    # Right and wrong tasks have no spread and get what ties give; the first round's four are everybody's.
    mixed = [g for g in groups if g.key.startswith("mixed") and len({t.reward for t in g.trajectories[:4]}) > 1]
    assert mixed
    assert max(sizes.values()) == max(len(g) for g in mixed)
    assert min(sizes.values()) == 4
    assert max(sizes.values()) <= method.most == 32
    streams = {(g.key, t.sample) for g in groups for t in g.trajectories}
    assert len(streams) == 48
    assert {t.tags["round"] for t in trajectories_of(groups)} == {0, 1, 2}


@pytest.mark.parametrize(("size", "base"), [(2, 2), (4, 2), (6, 3), (8, 4), (16, 4)])
def test_every_group_size_has_a_first_round(size: int, base: int, tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, group_size=size, seeding=False)
    assert method.base == base
    assert sum(map(len, method.collect(method.curriculum.next(2)))) == 2 * size


def test_one_phase_is_uniform(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, group_size=8, phases=1)
    assert [len(g) for g in method.collect(method.curriculum.next(2))] == [8, 8]


class Shown(Known):
    """An attempt is right when its prompt held an example, or the task is one that is always right: what `verify_trajectory` can see."""

    def held_out(self) -> Sequence[Task]:
        return [self.train_task(0, 300 + i) for i in range(3)]

    def verify_trajectory(self, trajectory) -> Mapping[str, float]:
        return {"correct": float(trajectory.task.id.startswith("right") or "seeded" in trajectory.tags)}

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": 0.0}


def test_an_unsolved_task_is_shown_what_others_solved(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, Shown(), group_size=8, tasks_per_step=3, exploration=1.0)
    groups = method.collect(method.curriculum.next(3))
    right, wrong, other = groups
    assert not any("seeded" in t.tags for t in right.trajectories)
    for group in (wrong, other):
        bare = method.policy.render(group.trajectories[0].task.messages)
        first, second, third = ([t for t in group.trajectories if t.tags["round"] == r] for r in (0, 1, 2))
        assert all(t.prompt == bare and "seeded" not in t.tags for t in first)
        assert second
        shown = method.policy.decode(second[0].prompt)
        assert all("seeded" in t.tags and t.prompt == second[0].prompt for t in second)
        # The solved task's question and answer stand in front of the own question.
        assert "compute 0" in shown
        assert shown.rstrip().endswith(group.trajectories[0].task.prompt)
        # Solved now, it is asked plainly again.
        assert all(t.prompt == bare for t in third)
        assert all(t.train_prompt is None for t in group.trajectories)
    metrics = method.credit(groups)
    assert metrics["signal/unsolved"] == pytest.approx(2 / 3)
    assert metrics["signal/saved"] == 2
    assert metrics["reward/solved_when_seeded"] == 1.0
    assert metrics["rollout/seeded"] == sum("seeded" in t.tags for t in trajectories_of(groups)) / 24
    assert method.run.ledger.prompt_tokens > 0


def test_without_seeding_nobody_is_shown_anything(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, Shown(), group_size=8, tasks_per_step=3, seeding=False)
    groups = method.collect(method.curriculum.next(3))
    assert all(t.prompt == method.policy.render(t.task.messages) for t in trajectories_of(groups))
    assert len(method.exemplars) == 0


def test_examples_of_other_families_only(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, Shown(), examples_from="other")
    groups = method.collect(method.curriculum.next(3))
    # All tasks of this set have the same family, none, so that there is nothing to show.
    assert not any("seeded" in t.tags for t in trajectories_of(groups))


def test_held_out_questions_never_become_examples(tmp_path: Path) -> None:
    class Leaky(Shown):
        """Held out is what is trained on as well."""

        def held_out(self) -> Sequence[Task]:
            return [self.train_task(0, i) for i in range(3)]

    method = ready("xrpo", tmp_path, Leaky())
    method.collect(method.curriculum.next(3))
    assert len(method.exemplars) == 0
    method.collect([method.task_set.train_task(0, 3)])
    assert [e.key for e in method.exemplars] == [prompt_key(method.task_set.train_task(0, 3))]


def test_a_prompt_with_examples_leaves_room_for_the_answer(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, max_new_tokens=60)
    asked, solved = Task("t", (Message("user", "x" * 90),)), Task("s", (Message("user", "x" * 80),))
    method.exemplars.add(solved, "y", 1)
    method.exemplars.add(Task("u", (Message("user", "x" * 79),)), "y", 1)
    failed = attempt(0.0)
    failed.task = asked
    messages = method.seeded_prompt(Group("t", [failed]))
    # Two examples would be more than 256 - 60 tokens.
    assert messages is not None
    assert len(messages) == 3
    assert len(method.policy.render(messages)) + 60 <= method.policy.context_length


@pytest.mark.parametrize("condition_on", ["seeded", "original"])
def test_the_prompt_that_a_seeded_attempt_is_trained_under(condition_on: str, tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, Shown(), group_size=8, tasks_per_step=3, condition_on=condition_on, lr=1e-3, sharpening=False)
    groups = method.collect(method.curriculum.next(3))
    method.credit(groups)
    seeded = [t for t in trajectories_of(groups) if "seeded" in t.tags]
    own = [sum(t.segments[0].logprobs) for t in seeded]
    now = [sum(v) for v in method.learner.logprobs(seeded)]
    gap = method.update(groups)["loss/sampler_gap"]
    if condition_on == "seeded":
        # Learner and sampler see the same prompt, so that nothing has to be corrected.
        assert now == pytest.approx(own, abs=1e-3)
        assert gap < 1e-4
    else:
        assert all(t.train_prompt == method.policy.render(t.task.messages) != t.prompt for t in seeded)
        assert gap > 1e-2
        assert now != pytest.approx(own, abs=1e-2)


def test_tokens_are_weighed_for_having_been_sampled_under_another_prompt(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path)
    assert isinstance(method.criterion, PolicyObjective)
    assert method.criterion.correction is not None
    ratio = torch.tensor([[0.5, 3.0]])
    assert method.criterion.correction(ratio, torch.ones(1, 2)).tolist() == [[0.5, 2.0]]


def test_unlikely_right_answers_earn_more(tmp_path: Path) -> None:
    def group() -> Group:
        made = [attempt(r) for r in (1.0, 1.0, 1.0, 0.0)]
        for trajectory, logprob in zip(made, (-0.3, -0.5, -0.9, -0.5), strict=True):
            trajectory.segments[0].logprobs = [logprob - 0.1, logprob, logprob + 0.1]
        return Group("t", made)

    sharp, plain = group(), group()
    metrics = ready("xrpo", tmp_path).credit([sharp])
    assert advantages(sharp) == pytest.approx([0.5, 0.5, 0.75, -1.5], abs=1e-5)
    assert (metrics["signal/sharpened"], metrics["signal/sharpened_length"]) == (0.25, 3.0)
    ready("xrpo", tmp_path, sharpening=False).credit([plain])
    assert advantages(plain) == pytest.approx([0.5, 0.5, 0.5, -1.5], abs=1e-5)


def test_an_unjudged_attempt_is_no_spread_and_no_success(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path)
    group = Group("t", [attempt(1.0), attempt(math.nan), attempt(0.0), attempt(1.0)])
    method.credit([group])
    assert advantages(group)[1] == 0.0
    assert not method.is_solved(group.trajectories[1])


def test_xrpo_takes_the_ratio_of_answers(tmp_path: Path) -> None:
    assert ready("xrpo", tmp_path, importance_ratio="answer").criterion.ratio is sequence_ratio


def test_a_task_that_stays_unsolved_is_given_up_until_it_is_solved(tmp_path: Path) -> None:
    settings = {"group_size": 8, "give_up_after": 2, "seeding": False}
    method = ready("xrpo", tmp_path, Known(), **settings)
    right, wrong = (method.task_set.train_task(0, i) for i in (0, 1))
    sizes = []
    for _ in range(3):
        groups = method.collect([right, wrong])
        method.remember(groups)
        sizes.append(len(groups[1]))
    # The rest goes to the other task, so that the total stays.
    assert (sizes, len(groups[0])) == ([8, 8, 4], 12)
    again = ready("xrpo", tmp_path, Known(), **settings)
    again.load_state(method.state())
    assert [len(g) for g in again.collect([right, wrong])] == [12, 4]
    never = ready("xrpo", tmp_path, Known(), group_size=8, seeding=False)
    for _ in range(3):
        never.remember(never.collect([right, wrong]))
    assert [len(g) for g in never.collect([right, wrong])] == [8, 8]


def test_examples_are_saved_as_plain_values(tmp_path: Path) -> None:
    method = ready("xrpo", tmp_path, Shown())
    method.collect(method.curriculum.next(3))
    state = method.state()
    state.plain = json.loads(json.dumps(state.plain))
    other = ready("xrpo", tmp_path, Shown())
    other.load_state(state)
    assert list(other.exemplars) == list(method.exemplars) != []


def test_xrpo_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--base-rollouts is 5, above --group-size 4"):
        ready("xrpo", tmp_path, base_rollouts=5)
    with pytest.raises(InputError, match="--most-rollouts is 3, below --group-size 4"):
        ready("xrpo", tmp_path, most_rollouts=3)
    turns = builtin_task_sets()["check-and-fix"]()
    with pytest.raises(InputError, match=r"check-and-fix is played in turns .* add --no-seeding"):
        ready("xrpo", tmp_path, turns)
    method = ready("xrpo", tmp_path, turns, seeding=False, tasks_per_step=2, max_new_tokens=0)
    metrics = method.step()
    assert metrics["rollout/turns"] > 1
    assert method.run.ledger.rollouts == 8


# DARS


def test_hard_tasks_get_their_quota_and_every_group_is_merged(tmp_path: Path) -> None:
    method = ready("dars", tmp_path, Rare(), group_size=8, tasks_per_step=6)
    groups = method.collect(method.curriculum.next(6))
    for group in groups:
        solved = sum(t.correct for t in group.trajectories[:8])
        assert len(group) == 8 + hardness_weighted(solved / 8, 8, 32)
        assert [t.sample for t in group.trajectories] == list(range(len(group)))
        assert [t.tags["round"] for t in group.trajectories] == [0] * 8 + [1] * (len(group) - 8)
    first = [sum(t.correct for t in g.trajectories[:8]) for g in groups]
    saved = [not f and any(t.correct for t in g.trajectories) for f, g in zip(first, groups, strict=True)]
    metrics = method.credit(groups)
    assert metrics["signal/unsolved"] == pytest.approx(first.count(0) / 6)
    assert metrics["signal/saved"] == sum(saved)
    assert metrics["rollout/added"] == pytest.approx((sum(map(len, groups)) - 48) / 6)
    assert method.run.ledger.rollouts == sum(map(len, groups)) > 48


def test_no_second_round_and_the_mirror_image(tmp_path: Path) -> None:
    tasks = Known()
    wanted = [tasks.train_task(0, i) for i in range(2)]
    sizes = {}
    for quota in ("none", "hardness-weighted", "equal-treatment", "easiness-weighted"):
        method = ready("dars", tmp_path, tasks, quota=quota, most_rollouts=12)
        sizes[quota] = [len(g) for g in method.collect(wanted)]
    # The first task is always right; the second never is, and counts as half a success: 4 (1 / (4 u (1 - u)) - 1) = 5.1 with u = 1/8.
    assert sizes == {"none": [4, 4], "hardness-weighted": [4, 12], "equal-treatment": [4, 10], "easiness-weighted": [12, 4]}


def test_hopeless_tasks_can_be_held_to_a_share(tmp_path: Path) -> None:
    method = ready("dars", tmp_path, Hopeless(), unsolved_share=0.5)
    groups = method.collect(method.curriculum.next(2))
    assert [len(g) for g in groups] == [8, 8]


def test_groups_are_filtered_after_merging(tmp_path: Path) -> None:
    method = ready("dars", tmp_path)
    mixed = Group("mixed", [attempt(0.0, correct=0.0), attempt(1.0, correct=1.0)])
    wrong = Group("wrong", [attempt(0.0, correct=0.0)] * 2)
    right = Group("right", [attempt(1.0, correct=1.0)] * 2)
    easy = Group("easy", [attempt(1.0, correct=1.0)] * 3 + [attempt(0.0, correct=0.0)])
    everything = [mixed, wrong, right, easy]
    assert method.select(everything) == [mixed, easy]
    assert ready("dars", tmp_path, upper_threshold=0.75).select(everything) == [mixed]
    assert ready("dars", tmp_path, filter_groups=False).select(everything) == everything


def test_a_larger_group_weighs_more(tmp_path: Path) -> None:
    def loss(size: int, aggregation: str) -> float:
        method = ready("dars", tmp_path, aggregation=aggregation, mini_batches=1)
        groups = [Group("t", [attempt(1.0), *(attempt(0.0) for _ in range(size - 1))])]
        # At the policy that sampled the loss is minus the weighted advantages: with all of them 1, minus the weight of all tokens.
        for trajectory in groups[0].trajectories:
            trajectory.segments[0].logprobs = []
            trajectory.set_advantage(1.0)
        return method.update(groups)["loss/total"]

    # 3 tokens an attempt; the constant is 6 tokens x 2 tasks x 4 attempts.
    assert loss(4, "constant") == pytest.approx(-4 * 3 / 48)
    assert loss(12, "constant") == pytest.approx(-12 * 3 / 48)
    assert loss(4, "dr_grpo") == pytest.approx(loss(12, "dr_grpo"))


@pytest.mark.parametrize(("scaled", "expected"), [(False, [0.75, -0.25, -0.25, -0.25]), (True, [math.sqrt(3), *[-1 / math.sqrt(3)] * 3])])
def test_dars_advantages(scaled: bool, expected: list[float], tmp_path: Path) -> None:
    # Rewards 1, 0, 0, 0: population deviation sqrt(3)/4.
    method = ready("dars", tmp_path, scale_by_deviation=scaled)
    group = Group("t", [attempt(1.0), attempt(0.0), attempt(0.0), attempt(0.0)])
    method.credit([group])
    assert advantages(group) == pytest.approx(expected, abs=1e-4)


def test_dars_with_nothing_to_learn_updates_nothing(tmp_path: Path) -> None:
    method = ready("dars", tmp_path, Hopeless(), most_rollouts=8)
    before = weights(method)
    metrics = method.step()
    assert (metrics["signal/updates"], metrics["signal/saved"], metrics["rollout/largest_group"]) == (0, 0, 8)
    assert torch.equal(before, weights(method))


def test_dars_in_an_environment(tmp_path: Path) -> None:
    method = ready("dars", tmp_path, builtin_task_sets()["calculator"](), most_rollouts=8, max_new_tokens=0)
    assert method.step()["rollout/turns"] > 1


def test_breadth_is_one_batch_passed_over_twice(tmp_path: Path) -> None:
    method = ready("dars-b", tmp_path, Mixed(), lr=1e-3)
    assert (method.config.learner.epochs, method.config.learner.mini_batches) == (2, 1)
    metrics = method.step()
    # The clip acts in the second pass alone: ratios are 1 in the first.
    assert metrics["loss/kl_old"] > 0
    assert method.run.ledger.trained_tokens % 2 == 0
    from etude.methods.exploration.dars_b import DARSBConfig

    assert DARSBConfig().tasks_per_step == 192


def test_dars_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--most-rollouts is 3, below --group-size 4"):
        ready("dars", tmp_path, most_rollouts=3)
    with pytest.raises(InputError, match="--mini-batches is 2; DARS-B updates on the full batch"):
        ready("dars-b", tmp_path, mini_batches=2)
