"""BroRL: the shape of a step, its learning rate, what is learnt from, and the reference that moves along."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from test_baselines import Known, Mixed, advantages, attempt, ready

import etude
from etude.advantages import centred, leave_one_out, whiten, whiten_trajectories
from etude.errors import InputError
from etude.methods.exploration.brorl import mini_batch_shares, sampled_mass
from etude.models.sampling import DecodeClock
from etude.objectives import PolicyObjective
from etude.run import Run, without_time
from etude.types import Group, Task, trajectories_of


class Rare(Known):
    """A task is solved by an attempt that begins with a certain letter: seldom, but by some of hundreds."""

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": float(text[:1] == task.answer[:1] if task.answer else False)}


def weights(method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.policy.model.parameters()])


@pytest.mark.parametrize(
    ("shape", "batch", "factor"),
    [
        ({"tasks_per_step": 128, "group_size": 512}, 512 * 16, math.sqrt(8)),
        ({"tasks_per_step": 4, "group_size": 128}, 256, math.sqrt(2)),
        ({"tasks_per_step": 16, "group_size": 16}, 256, 1.0),
        ({"tasks_per_step": 4, "group_size": 16}, 256, 0.5),
        ({"tasks_per_step": 4, "group_size": 128}, 0, 1.0),
    ],
    ids=["the paper's", "wider", "the same", "smaller", "switched off"],
)
def test_the_learning_rate_goes_with_the_square_root_of_the_batch(shape: dict[str, int], batch: int, factor: float, tmp_path: Path) -> None:
    method = ready("brorl", tmp_path, lr=1e-4, lr_batch=batch, **shape)
    assert method.learner.lr == pytest.approx(1e-4 * factor)
    # A model's own rate is scaled as well.
    assert ready("brorl", tmp_path, lr_batch=batch, **shape).learner.lr == pytest.approx(3e-4 * factor)


def test_a_group_of_256_is_one_prefill_and_one_update_in_pieces(tmp_path: Path) -> None:
    method = ready("brorl", tmp_path, tasks_per_step=1, group_size=256, micro_batch_tokens=150, lr=1e-3, dynamic_sampling=False)
    method.policy.sampler.slots = 64
    prompt = len(method.policy.render(method.task_set.train_task(0, 0).messages))
    clock: DecodeClock = method.policy.sampler.clock.copy()
    embedded: list[int] = []
    (group,) = method.collect(method.curriculum.next(1))
    spent = method.policy.sampler.clock.since(clock)
    assert len(group) == 256
    assert len({tuple(t.tokens) for t in group.trajectories}) > 20
    # A quarter of the attempts fit the sampler at once. The prompt is read by the first of them; those that come later feed its last token alone, for its logits.
    assert prompt < spent.prefill_tokens < 2 * prompt + 64
    assert spent.steps > 4 * 3
    method.policy.model.get_input_embeddings().register_forward_pre_hook(lambda _m, given: embedded.append(given[0].numel()))
    before = weights(method)
    metrics = method.credit([group]) | method.update([group])
    assert metrics["loss/grad_norm"] > 0
    assert metrics["signal/groups_trained"] == 1
    assert not torch.equal(before, weights(method))
    assert len(embedded) > 4
    assert max(embedded) <= 150


def test_wide_groups_find_what_narrow_ones_miss(tmp_path: Path) -> None:
    def mixed(group_size: int) -> float:
        method = ready("brorl", tmp_path, Rare(), tasks_per_step=4, group_size=group_size, dynamic_sampling=False)
        groups = method.collect(method.curriculum.next(4))
        return method.credit(method.select(groups))["signal/groups_mixed"]

    assert mixed(128) > mixed(4)


def test_only_groups_that_teach_are_kept_and_missing_ones_are_replaced(tmp_path: Path) -> None:
    method = ready("brorl", tmp_path, Known(), tasks_per_step=3, group_size=16)
    groups = method.collect(method.curriculum.next(3))
    chosen = method.select(groups)
    assert len(chosen) == 3
    assert all(g.key.startswith("mixed") for g in chosen)
    # Three tasks, of which one is mixed; then two at a time, as many as are missing, of which every third is.
    assert 3 < len(groups) == method.curriculum.cursor
    assert method.run.ledger.rollouts == 16 * len(groups)
    metrics = method.credit(chosen)
    assert metrics["signal/groups_mixed"] == pytest.approx(sum(g.key.startswith("mixed") for g in groups) / len(groups))
    everything = ready("brorl", tmp_path, Known(), tasks_per_step=3, group_size=16, dynamic_sampling=False)
    assert [g.key for g in everything.select(everything.collect(everything.curriculum.next(3)))] == ["right-0", "wrong-1", "mixed-2"]


def test_advantages_are_centred_in_the_group_and_whitened_over_answers(tmp_path: Path) -> None:
    def credited(**settings: object) -> list[float]:
        # Answers of different lengths: whitened over tokens, the long one would weigh more in mean and deviation.
        first = Group("a", [attempt(1.0, [5] * 9), attempt(0.0), attempt(0.0), attempt(0.0)])
        second = Group("b", [attempt(1.0), attempt(1.0), attempt(0.0), attempt(0.0)])
        method = ready("brorl", tmp_path, **settings)
        method.seen = {}
        metrics = method.credit([first, second])
        found = [*advantages(first), *advantages(second)]
        assert metrics["signal/advantage"] == pytest.approx(sum(map(abs, found)) / 8)
        return found

    # Centred: 3/4 and three times -1/4; +-1/2 twice. Their mean is 0 and their sum of squares 3/4 + 1, over 7.
    raw = [0.75, -0.25, -0.25, -0.25, 0.5, 0.5, -0.5, -0.5]
    assert credited(whitening=False) == pytest.approx(raw)
    assert credited() == pytest.approx([v / 0.5 for v in raw], abs=1e-6)


def test_whitening_takes_the_shrinkage_of_the_groups_mean_out() -> None:
    """With groups of one size the mean of all and the mean of the others differ by the factor N / (N - 1), which whitening does not see."""
    groups = [Group("a", [attempt(1.0), attempt(0.0), attempt(0.0), attempt(0.0)]), Group("b", [attempt(1.0), attempt(1.0), attempt(0.0), attempt(0.0)])]
    found = []
    for baseline in (centred, leave_one_out):
        whiten_trajectories(groups, baseline, whiten)
        found.append([a for group in groups for a in advantages(group)])
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert max(found[0]) > 1


def test_the_objective_is_the_papers(tmp_path: Path) -> None:
    criterion = ready("brorl", tmp_path).criterion
    assert isinstance(criterion, PolicyObjective)
    assert (criterion.aggregation, criterion.clip_low, criterion.clip_high) == ("token_mean", 0.2, 0.28)
    assert criterion.correction is not None
    # Weights for the gap between sampler and learner are cut at 2.
    assert criterion.correction(torch.tensor([0.5, 3.0]), torch.ones(2)).tolist() == pytest.approx([0.5, 2.0])


def test_mini_batches_stay_as_many_and_each_has_its_share_of_every_task(tmp_path: Path) -> None:
    groups = [Group(name, [attempt(0.0) for _ in range(size)]) for name, size in (("a", 8), ("b", 10), ("c", 1))]
    shares = mini_batch_shares(groups, 4)
    dealt = [shares[i::4] for i in range(4)]
    assert [[len(part) for part in one] for one in dealt] == [[2, 3, 1], [2, 3, 0], [2, 2, 0], [2, 2, 0]]
    assert {id(t) for part in shares for t in part} == {id(t) for t in trajectories_of(groups)}
    steps: list[int] = []
    method = ready("brorl", tmp_path, tasks_per_step=1, group_size=32, mini_batches=4, dynamic_sampling=False)
    method.learner.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    method.step()
    # One group alone, and still four optimiser steps.
    assert len(steps) == 4


def test_the_mass_that_was_sampled_counts_each_text_once() -> None:
    likely, other = attempt(1.0, [5]), attempt(0.0, [6, 7])
    likely.segments[0].logprobs = [math.log(0.5)]
    other.segments[0].logprobs = [math.log(0.5), math.log(0.25)]
    assert sampled_mass(Group("t", [likely, likely, other])) == pytest.approx(0.5 + 0.125)


def test_the_reference_moves_along_and_is_still_there_after_a_checkpoint(tmp_path: Path) -> None:
    settings = {"kl_coefficient": 0.05, "reference_steps": 2, "lr": 1e-2, "lr_batch": 0, "group_size": 8, "dynamic_sampling": False}

    def stepped(method, first: int, last: int) -> list[float]:
        found = []
        for step in range(first, last + 1):
            method.run.step = step
            found.append(abs(method.step()["loss/kl_reference"]))
        return found

    method = ready("brorl", tmp_path, **settings)
    distances = stepped(method, 1, 3)
    # Steps 1 and 3 begin at the reference: it is the start in the first, and was reset after the second.
    assert distances[0] == pytest.approx(0.0, abs=1e-5)
    assert distances[1] > 1e-3
    assert distances[2] == pytest.approx(0.0, abs=1e-5)
    state = method.state()
    again = ready("brorl", tmp_path, **settings)
    again.load_state(state)
    assert stepped(again, 4, 5) == stepped(method, 4, 5)
    assert torch.equal(weights(again), weights(method))
    fixed = ready("brorl", tmp_path, **{**settings, "reference_steps": 0})
    assert stepped(fixed, 1, 3)[2] > 1e-3


def test_a_run_whose_reference_was_reset_resumes_exactly(tmp_path: Path) -> None:
    settings = {
        **{"tasks_per_step": 2, "group_size": 8, "max_new_tokens": 10, "eval_tasks": 4, "eval_samples": 2, "evaluate_every": 0, "checkpoint_every": 2},
        **{"kl_coefficient": 0.05, "reference_steps": 1, "lr": 3e-3, "warmup_steps": 0, "quiet": True, "threads": 1, "dynamic_sampling": False},
    }
    etude.train("brorl", out=tmp_path / "whole", steps=4, **settings)
    etude.train("brorl", out=tmp_path / "parted", steps=2, **settings)
    etude.train(resume=tmp_path / "parted", steps=4)
    whole, parted = ([without_time(line) for line in Run.open(tmp_path / name).metrics() if "loss/total" in line] for name in ("whole", "parted"))
    assert [line["step"] for line in whole] == [1, 2, 3, 4]
    for line in (*whole, *parted):
        # The shorter run measured once more, after its own last step.
        line["ledger"] = {k: v for k, v in line["ledger"].items() if not k.startswith("evaluation")}
    assert parted == whole


def test_a_reference_that_nobody_looks_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--reference-steps is 5, but --kl-coefficient is 0"):
        ready("brorl", tmp_path, reference_steps=5)


def test_the_divergence_from_the_start_is_measured_from_the_start(tmp_path: Path) -> None:
    settings = {"kl_coefficient": 0.05, "lr": 1e-2, "lr_batch": 0, "eval_kl": True, "dynamic_sampling": False}
    moving, fixed = (ready("brorl", tmp_path, Mixed(), reference_steps=steps, **settings) for steps in (1, 0))
    for method in (moving, fixed):
        for step in (1, 2):
            method.run.step = step
            method.step()
        attempts = method.rollout(method.task_set.held_out())
        method.found = method.kl_to_start(trajectories_of(attempts))
    assert moving.found > 1e-3
    # Reset after the first step, the reference is one update away; the start is two.
    reference = moving.learner.logprobs(trajectories_of(moving.rollout(moving.task_set.held_out())), reference=True)
    assert reference != moving.learner.logprobs(trajectories_of(moving.rollout(moving.task_set.held_out())), reference="start")
