"""Training of weights that are kept in few bits: steps smaller than their spacing add up, and nothing of them is lost in a checkpoint."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import build
from safetensors.torch import load_file, save_file
from torch import nn

import etude
from etude.config import LearnerConfig
from etude.errors import NonFiniteError
from etude.models.learner import Learner
from etude.models.precision import LossScale, OptimisedWeights
from etude.objectives import SupervisedObjective
from etude.run import Run, without_time
from etude.types import Message, Segment, Task, Trajectory

TASK = Task("t", (Message("user", "?"),))
UNITS = [[Trajectory(TASK, [5, 6, 7 + i], [Segment([20 + i, 31, 42 - i, 13], "policy", trained=True)], "eos")] for i in range(4)]


def parameter(value: float, dtype: torch.dtype = torch.bfloat16) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value], dtype=dtype))


def learner(model: Any, **options: Any) -> Learner:
    return Learner(model, LearnerConfig(**{"lr": 1e-4, "warmup_steps": 0, **options}))


def train(trained: Learner, steps: int) -> Learner:
    for _ in range(steps):
        trained.update(UNITS, SupervisedObjective())
    return trained


def rounded_llama() -> Any:
    """In float32, with weights that bfloat16 has too."""
    return build("llama").bfloat16().float()


def test_steps_smaller_than_the_spacing_add_up() -> None:
    # Above 1, bfloat16 has 1.0078125 next. Ten steps of 0.001 come to 1.01, of which that is the nearest; each alone would round to nothing.
    own = parameter(1.0)
    weights = OptimisedWeights({"w": own})
    seen = []
    for _ in range(10):
        weights.take_over()
        own.grad = torch.tensor([-1.0], dtype=torch.bfloat16)
        weights.gather()
        torch.optim.SGD(list(weights.by_name.values()), lr=0.001).step()
        weights.write_back()
        seen.append(float(own))
    assert float(weights.copies["w"]) == pytest.approx(1.01, abs=1e-6)
    assert seen == [1.0] * 3 + [1.0078125] * 7


def test_gradients_add_up_in_float32() -> None:
    # In bfloat16, 256 + 1 is 256.
    own = parameter(1.0)
    weights = OptimisedWeights({"w": own})
    weights.take_over()
    for gradient in (256.0, 1.0, 1.0, 1.0, 1.0):
        own.grad = torch.tensor([gradient], dtype=torch.bfloat16)
        weights.gather()
        assert own.grad is None
    assert weights.copies["w"].grad.tolist() == [260.0]  # type: ignore[union-attr]
    weights.take_over()
    assert weights.copies["w"].grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_full_precision_are_stepped_on_themselves(dtype: torch.dtype) -> None:
    own = parameter(1.0, dtype)
    weights = OptimisedWeights({"w": own})
    assert weights.by_name["w"] is own
    assert weights.state() == {}
    own.grad = torch.ones(1, dtype=dtype)
    weights.gather()
    assert own.grad is not None


def test_weights_changed_from_outside_go_before_their_copies() -> None:
    kept, changed = parameter(1.0), parameter(1.0)
    weights = OptimisedWeights({"kept": kept, "changed": changed})
    for copied in weights.copies.values():
        copied.data += 0.001
    weights.write_back()
    changed.data.fill_(3.0)
    weights.take_over()
    assert {name: float(value) for name, value in weights.state().items()} == {"kept": pytest.approx(1.001), "changed": 3.0}


@pytest.mark.parametrize(("dtype", "lr"), [(torch.bfloat16, 1e-4), (torch.bfloat16, 2e-6), (torch.float16, 1e-5)])
def test_rounded_weights_move_as_full_ones_do(dtype: torch.dtype, lr: float) -> None:
    start = torch.cat([p.detach().flatten() for p in rounded_llama().parameters()])
    full = train(learner(rounded_llama(), lr=lr), 10)
    half = train(learner(rounded_llama().to(dtype), lr=lr), 10)
    moves = [torch.cat([p.detach().flatten() for p in each.weights.by_name.values()]) - start for each in (full, half)]
    # Ten steps of AdamW move a weight by ten learning rates at most, about; gradients of rounded activations lead the same way.
    assert float(moves[0].abs().max()) > 5 * lr
    assert float(torch.nn.functional.cosine_similarity(*moves, dim=0)) > 0.97
    assert float(moves[1].norm()) == pytest.approx(float(moves[0].norm()), rel=0.02)
    # What the model computes with is the rounding of that.
    assert all(torch.equal(own, half.weights.copies[name].to(dtype)) for name, own in half.model.named_parameters())
    assert all(v.dtype == torch.float32 for state in half.optimizer.state.values() for v in state.values())


def test_gradients_too_small_for_float16_are_not_lost() -> None:
    # A loss of a millionth has gradients of which most are below 6e-8, the least that float16 has.
    def gradient(dtype: torch.dtype) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        trained = learner(rounded_llama().to(dtype), grad_clip=0.0)
        trained.optimizer.register_step_pre_hook(
            lambda *_: seen.append(torch.cat([p.grad.flatten() for p in trained.weights.by_name.values() if p.grad is not None]))
        )
        trained.update(UNITS, Small())
        return seen[0]

    full, half = gradient(torch.float32), gradient(torch.float16)
    tiny = (full != 0) & (full.abs() < 6e-8 / 4)
    assert float(tiny.float().mean()) > 0.2
    assert float((half[tiny] != 0).float().mean()) > 0.95
    assert float(torch.nn.functional.cosine_similarity(full, half, dim=0)) > 0.98


class Small(SupervisedObjective):
    """Imitation, a millionth of it."""

    def __call__(self, batch: Any) -> Any:
        loss, statistics = super().__call__(batch)
        return loss * 1e-6, statistics


class Large(SupervisedObjective):
    def __call__(self, batch: Any) -> Any:
        loss, statistics = super().__call__(batch)
        return loss * 100.0, statistics


def test_a_gradient_that_overflows_is_computed_again_at_a_smaller_scale() -> None:
    trained = learner(rounded_llama().half())
    metrics = trained.update(UNITS, Large())
    assert metrics["loss/scale"] == trained.loss_scale.value < LossScale.START
    full = learner(rounded_llama())
    assert metrics["loss/grad_norm"] == pytest.approx(full.update(UNITS, Large())["loss/grad_norm"], rel=0.05)
    plain, tensors = trained.state()
    resumed = learner(copy.deepcopy(trained.model))
    resumed.load_state(json.loads(json.dumps(plain)), tensors)
    assert resumed.loss_scale == trained.loss_scale


def test_a_gradient_that_is_never_finite_stops_the_update() -> None:
    class Endless(SupervisedObjective):
        def __call__(self, batch: Any) -> Any:
            loss, statistics = super().__call__(batch)
            # The square root of 0 has the value 0 and an infinite slope.
            return loss + (loss - loss.detach()).clamp_min(0).sqrt(), statistics

    trained = learner(rounded_llama().half())
    before = [p.detach().clone() for p in trained.model.parameters()]
    with pytest.raises(NonFiniteError, match="gradient norm"):
        trained.update(UNITS, Endless())
    assert all(torch.equal(a, b) for a, b in zip(before, trained.model.parameters(), strict=True))


def test_the_loss_scale_falls_at_once_and_rises_slowly() -> None:
    scale = LossScale.of({torch.float16, torch.float32})
    assert (scale.value, LossScale.of({torch.bfloat16}).value) == (65536.0, 1.0)
    scale.overflowed()
    assert scale.value == 32768.0
    for _ in range(1999):
        scale.stepped()
    assert scale.value == 32768.0
    scale.stepped()
    assert (scale.value, scale.good_steps) == (65536.0, 0)
    for _ in range(2000):
        scale.stepped()
    assert scale.value == LossScale.START
    for _ in range(16):
        scale.overflowed()
    assert (scale.value, scale.active) == (1.0, False)
    for _ in range(2000):
        scale.stepped()
    assert scale.value == 2.0


def test_many_micro_batches_of_rounded_weights_add_up_to_their_mean() -> None:
    units = [[Trajectory(TASK, [5, 6], [Segment([20], "policy", trained=True)], "eos")] for _ in range(256)]
    seen: list[torch.Tensor] = []
    for some in (units[:1], units):
        trained = learner(rounded_llama().bfloat16(), grad_clip=0.0, micro_batch_tokens=1, share_prompts=False)
        trained.optimizer.register_step_pre_hook(
            lambda *_, trained=trained: seen.append(torch.cat([p.grad.flatten() for p in trained.weights.by_name.values() if p.grad is not None]))
        )
        trained.update(some, SupervisedObjective())
    # The mean of 256 equal parts is one of them, exactly: a power of two changes no digits. A sum in bfloat16 loses digits of a part as it grows.
    assert float((seen[1] - seen[0]).norm() / seen[0].norm()) < 1e-5


def test_a_saved_learner_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = train(learner(rounded_llama().bfloat16(), weight_decay=0.01), 3)
    plain, tensors = whole.state()
    save_file(tensors, tmp_path / "state.safetensors")
    resumed = learner(copy.deepcopy(whole.model), weight_decay=0.01)
    resumed.load_state(json.loads(json.dumps(plain)), load_file(tmp_path / "state.safetensors"))
    assert any(not torch.equal(value, value.bfloat16().float()) for value in resumed.weights.state().values())
    for each in (whole, resumed):
        train(each, 3)
    after = [each.state()[1] for each in (whole, resumed)]
    assert after[0].keys() == after[1].keys()
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_a_resumed_run_in_bfloat16_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("import zlib\n\ndef parity(task, text):\n    return float(zlib.crc32(text.encode()) % 2)\n")
    settings: dict[str, Any] = {"dtype": "bfloat16", "device": "cpu", "reward": f"{reward}:parity", "lr": 1e-4, "tasks_per_step": 2, "group_size": 4}
    settings |= {"max_new_tokens": 8, "eval_tasks": 2, "eval_samples": 2, "evaluate_every": 2, "threads": 1, "quiet": True}
    etude.train("grpo", out=tmp_path / "whole", steps=4, **settings)
    etude.train("grpo", out=tmp_path / "parted", steps=2, **settings)
    etude.train(resume=tmp_path / "parted", steps=4)
    lines = [[without_time(line) for line in Run.open(tmp_path / name).metrics() if "loss/total" in line] for name in ("whole", "parted")]
    assert len(lines[0]) == 4
    assert lines[0] == lines[1]
    kept = [load_file(Run.open(tmp_path / name).checkpoints.load(4).path / "state.safetensors") for name in ("whole", "parted")]
    copies = [name for name in kept[0] if name.startswith("learner.master.")]
    assert copies
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
