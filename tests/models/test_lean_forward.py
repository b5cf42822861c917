"""The learner's shorter forward pass: the logits and gradients of the model's own, and which models it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from random_models import build
from test_lean_decoder import qwen2
from torch import Tensor
from transformers import PreTrainedModel

from etude.config import LearnerConfig
from etude.models.block_attention import BlockPlan, no_mask, takes_blocks
from etude.models.lean_decoder import LeanDecoder
from etude.models.lean_forward import LeanForward
from etude.models.learner import Learner

TOKENS = torch.tensor([[5, 9, 3, 7, 11, 8, 2, 4, 40, 41, 5]])
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 3, 4, 2, 3, 4, 5]])
COLUMNS = torch.tensor([2, 5, 4, 7, 10, 4])


def plan() -> BlockPlan:
    return BlockPlan.of([3, 2], [2, 4], [0, 1], torch.device("cpu"))


def made(architecture: str) -> PreTrainedModel:
    model = qwen2() if architecture == "qwen2" else build(architecture)
    assert takes_blocks(model)
    return model


def own_logits(model: PreTrainedModel) -> Tensor:
    mask = no_mask(model, torch.device("cpu"))
    return model(input_ids=TOKENS, attention_mask=mask, position_ids=POSITIONS, use_cache=False, blocks=plan()).logits[0, COLUMNS]


def assert_gradients_agree(model: PreTrainedModel, other: PreTrainedModel, directions: Sequence[float] = (1.0, -2.0)) -> None:
    lean = LeanForward.of(model)
    assert lean is not None
    ours, theirs = lean(TOKENS, POSITIONS, plan(), COLUMNS), own_logits(other)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    weight = torch.tensor(directions * 3)[:, None] * torch.linspace(-1, 1, ours.shape[1])
    for logits in (ours, theirs):
        (logits * weight).sum().backward()
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None and b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-5 * max(1.0, float(b.grad.abs().max())), rtol=0, msg=name)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_logits_and_gradients_are_those_of_the_model(architecture: str) -> None:
    assert_gradients_agree(made(architecture), made(architecture))


def test_adapters_and_frozen_weights_take_part() -> None:
    peft = pytest.importorskip("peft")

    def adapted() -> PreTrainedModel:
        model = made("llama")
        torch.manual_seed(0)
        return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")).eval()

    assert_gradients_agree(adapted(), adapted())


@pytest.mark.parametrize("architecture", ["gpt2", "mistral-sliding"])
def test_other_models_are_left_alone(architecture: str) -> None:
    assert LeanForward.of(made(architecture)) is None


def test_a_model_that_computes_something_else_is_left_alone() -> None:
    model = made("llama")
    model.model.layers[0].mlp.register_forward_hook(lambda _m, _a, out: 2 * out)  # type: ignore[union-attr, operator]
    assert LeanForward.of(model) is None


def test_other_number_formats_are_left_alone() -> None:
    assert LeanForward.of(made("llama").to(torch.bfloat16)) is None


def test_recomputing_activations_goes_by_the_model_itself() -> None:
    model = made("llama")
    assert Learner(model, LearnerConfig())._lean is not None
    assert Learner(model, LearnerConfig(gradient_checkpointing=True))._lean is None


def test_sampler_and_learner_share_the_joined_weights() -> None:
    model = made("llama")
    decoder, lean = LeanDecoder.of(model), LeanForward.of(model)
    assert decoder is not None
    assert lean is not None
    for ours, theirs in zip([*decoder.qkv, *decoder.gate_up], [*lean.qkv, *lean.gate_up], strict=True):
        assert ours.joint()[0].data_ptr() == theirs.joint()[0].data_ptr()
