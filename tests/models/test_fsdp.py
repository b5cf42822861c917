"""The sharded learner on two processes of a CPU, against the learner of one."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import build
from test_learner import Units, moving, units_of
from torch import Tensor

from etude.checkpoints import Checkpoints
from etude.config import LearnerConfig
from etude.errors import CheckpointError, InputError, LearnerLost, NonFiniteError
from etude.method import State
from etude.models.fsdp.checks import check_fsdp, check_sendable
from etude.models.fsdp.learner import FsdpLearner
from etude.models.fsdp.ranks import Ranks
from etude.models.fsdp.sharded import dealt
from etude.models.fsdp.shards import read_whole
from etude.models.learner import Learner
from etude.objectives import Objective, PolicyObjective, PreferenceObjective, ppo_surrogate

POLICY = PolicyObjective(ppo_surrogate(0.2, 0.2), kl_coefficient=0.1, entropy_coefficient=0.01)
SLOWLY = moving(lr=1e-3)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    started = Ranks(2, "cpu")
    yield started
    started.close()


def pairs() -> Units:
    return [[chosen, rejected] for unit in units_of(tasks=3) for chosen, rejected in zip(unit[::2], unit[1::2], strict=True)]


def adapted(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    return peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def weights_of(model: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize(
    ("objective", "units", "lora", "config"),
    [
        # Micro-batches of at most 60 tokens: the ranks have different numbers of them.
        (POLICY, units_of(tasks=3), False, replace(SLOWLY, micro_batch_tokens=60, epochs=2, mini_batches=2, gradient_checkpointing=True)),
        (PreferenceObjective(), pairs(), False, SLOWLY),
        (POLICY, units_of(tasks=1, attempts=1), True, SLOWLY),
    ],
    ids=["policy", "preferences", "lora-and-an-idle-rank"],
)
def test_two_ranks_do_what_one_process_does(ranks: Ranks, tmp_path: Path, objective: Objective, units: Units, lora: bool, config: LearnerConfig) -> None:
    models = [adapted(build("llama")) if lora else build("llama") for _ in range(2)]
    one, two = Learner(models[0], config), FsdpLearner(models[1], config, ranks=ranks)
    one.freeze_reference()
    two.freeze_reference()
    for _ in range(2):
        expected, found = one.update(units, objective), two.update(units, objective)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
        same(weights_of(models[1]), weights_of(models[0]))
    # The running mean of gradients, from what the ranks write.
    two.write_shards(tmp_path)
    written, kept = read_whole(tmp_path), one.state()[1]
    assert written.keys() == kept.keys()
    for name in kept:
        same(written[name], kept[name])
    flat = [t for unit in units for t in unit]
    for a, b in zip(one.logprobs(flat, reference=True), two.logprobs(flat, reference=True), strict=True):
        assert b == pytest.approx(a, abs=1e-5)


class TestSaving:
    def test_what_two_ranks_saved_goes_on_in_one_process_and_back(self, ranks: Ranks, tmp_path: Path) -> None:
        checkpoints, units = Checkpoints(tmp_path), units_of(tasks=2)
        model, config = build("llama"), SLOWLY
        learner: Learner | FsdpLearner = FsdpLearner(model, config, ranks=ranks)
        expected_model = build("llama")
        expected = Learner(expected_model, config)
        objective = PolicyObjective(POLICY.surrogate)
        for step in range(3):
            metrics = learner.update(units, objective)
            assert metrics == pytest.approx(expected.update(units, objective), rel=1e-5, abs=1e-5)
            learner.reset_reference()
            plain, tensors = learner.state()
            checkpoints.save(step, State({"learner": plain}, tensors, learner.write_shards), progress={})
            state = checkpoints.load(step).state()
            learner = Learner(model, config) if step == 0 else FsdpLearner(model, config, ranks=ranks)
            learner.load_state(state.plain["learner"], state.tensors, state.shards)
            assert learner.steps == step + 1
        same(weights_of(model), weights_of(expected_model))

    def test_a_state_of_before_the_first_update_has_no_files_and_is_whole_all_the_same(self, ranks: Ranks, tmp_path: Path) -> None:
        checkpoints, learner = Checkpoints(tmp_path), FsdpLearner(build("llama"), SLOWLY, ranks=ranks)
        plain, tensors = learner.state()
        checkpoints.save(0, State({"learner": plain}, tensors, learner.write_shards), progress={})
        state = checkpoints.load(0).state()
        assert list(checkpoints.path(0).glob("shards/*")) == []
        for reader in (Learner(build("llama"), SLOWLY), learner):
            reader.load_state(state.plain["learner"], state.tensors, state.shards)

    def test_files_are_plain_and_checked(self, ranks: Ranks, tmp_path: Path) -> None:
        checkpoints, learner = Checkpoints(tmp_path), FsdpLearner(build("llama"), SLOWLY, ranks=ranks)
        learner.update(units_of(tasks=1), PolicyObjective(POLICY.surrogate))
        plain, tensors = learner.state()
        folder = checkpoints.save(1, State({"learner": plain}, tensors, learner.write_shards), progress={}) / "shards"
        files = sorted(folder.iterdir())
        assert len(files) == 2
        assert {p.suffix for p in files} == {".safetensors"}
        with pytest.raises(CheckpointError, match="saved by 2 ranks"):
            Learner(build("llama"), SLOWLY).load_state(plain, {}, None)
        whole = files[1].read_bytes()
        (folder / "extra.safetensors").write_bytes(whole)
        with pytest.raises(CheckpointError, match="does not list"):
            checkpoints.load(1)
        (folder / "extra.safetensors").unlink()
        files[0].rename(folder.parent / "gone")
        with pytest.raises(CheckpointError, match="lacks a part"):
            read_whole(folder)
        with pytest.raises(CheckpointError, match="incomplete"):
            checkpoints.load(1)
        (folder.parent / "gone").rename(files[0])
        files[1].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CheckpointError, match="SHA-256"):
            checkpoints.load(1)


def test_weights_that_somebody_else_sets_go_before_the_ranks(ranks: Ranks) -> None:
    model, units = build("llama"), units_of(tasks=1)
    learner = FsdpLearner(model, SLOWLY, ranks=ranks)
    before = learner.logprobs(units[0])
    learner.update(units, PolicyObjective(POLICY.surrogate))
    assert learner.logprobs(units[0])[0] != pytest.approx(before[0], abs=1e-4)
    with torch.no_grad():
        for parameter, start in zip(model.parameters(), build("llama").parameters(), strict=True):
            parameter.data.copy_(start)
    assert learner.logprobs(units[0])[0] == pytest.approx(before[0], abs=1e-6)


def test_a_loss_that_is_not_finite_changes_nothing_and_leaves_the_ranks_at_work(ranks: Ranks) -> None:
    model, units = build("llama"), units_of(tasks=1)
    learner = FsdpLearner(model, SLOWLY, ranks=ranks)
    before = weights_of(model)
    units[0][0].set_advantage(math.inf)
    with pytest.raises(NonFiniteError, match="the loss is"):
        learner.update(units, PolicyObjective(POLICY.surrogate))
    assert torch.equal(weights_of(model), before)
    assert all(map(math.isfinite, learner.logprobs(units[0])[0]))


def test_a_killed_rank_ends_the_others_and_is_named(ranks: Ranks) -> None:
    """The last one to use the ranks."""
    model = build("llama")
    learner = FsdpLearner(model, SLOWLY, ranks=ranks)
    learner.logprobs(units_of(tasks=1)[0])
    before = weights_of(model)
    os.kill(ranks.pids[1], signal.SIGKILL)
    with pytest.raises(LearnerLost, match="rank 1 was ended by SIGKILL"):
        learner.update(units_of(tasks=1), PolicyObjective(POLICY.surrogate))
    assert torch.equal(weights_of(model), before)
    for pid in ranks.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_items_are_dealt_out_by_cost() -> None:
    # Middles of the costs at 1, 3, 5, 8 of 10: halves are cut at 5.
    assert dealt([2, 2, 2, 4], 2) == [[0, 1], [2, 3]]
    assert dealt([9, 1], 2) == [[0], [1]]
    assert dealt([5], 3) == [[], [0], []]
    assert dealt([], 2) == [[], []]


def test_what_cannot_be_is_refused_before_ranks_start(monkeypatch: pytest.MonkeyPatch) -> None:
    config, cpu = LearnerConfig(learner="fsdp", ranks=4), torch.device("cpu")
    check_fsdp(config, cpu, 4)
    with pytest.raises(InputError, match="--ranks is 4, and an optimiser step has 3 units"):
        check_fsdp(config, cpu, 3)
    with pytest.raises(InputError, match="the objective of Mine can't be sent"):
        check_sendable(PolicyObjective(lambda ratio, advantages, _: ratio * advantages), "Mine")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    with pytest.raises(InputError, match="torch sees 2 GPUs"):
        check_fsdp(config, torch.device("cuda"), 8)
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(InputError, match="without torchrun"):
        check_fsdp(config, cpu, 8)
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"without torch\.distributed"):
        check_fsdp(config, cpu, 8)
