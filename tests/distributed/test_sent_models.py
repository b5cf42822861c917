"""Models and weights as other processes are sent them."""

from __future__ import annotations

import pickle

import pytest
import torch

from etude.config import LearnerConfig
from etude.distributed.weights import packed, take_over, unpacked
from etude.models.adapters import merged_weights, without_adapter
from etude.models.language import LanguageModel
from etude.models.sampling import Request, SamplingParams
from etude.models.skeletons import filled, skeleton_of, tensors_of
from etude.types import Message


def test_tensors_of_any_format_come_back_bit_by_bit() -> None:
    numbers = torch.tensor([[1.5, -2.25], [0.1, 3e38]])
    sent = {"a": numbers, "b": numbers.bfloat16(), "c": torch.tensor(7), "d": torch.tensor([True, False]), "e": numbers.t(), "f": torch.empty(0, 3)}
    back = dict(unpacked(packed(sent.items())))
    assert list(back) == list(sent)
    for name, tensor in sent.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(back[name], tensor)


def test_a_model_with_an_adapter_is_sent_merged_and_writes_the_same() -> None:
    pytest.importorskip("peft", reason="LoRA needs the extra `lora`")
    policy = LanguageModel.load("tiny", device="cpu", learner=LearnerConfig(lora_rank=2))
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=noise))
    skeleton = pickle.loads(pickle.dumps(skeleton_of(policy.model).unload()))
    assert all(t.is_meta for t in tensors_of(skeleton).values())
    values = {**dict(merged_weights(policy.model)), **dict(without_adapter(policy.model).named_buffers())}
    sent = LanguageModel.wrap(filled(skeleton, dict(unpacked(packed(values.items()))), torch.device("cpu")), policy.tokenizer)
    requests = [Request(tuple(policy.render([Message("user", f"{i}+4=")])), SamplingParams(12, ignore_eos=True), stream=i) for i in range(6)]
    here, there = policy.sampler.generate(requests), sent.sampler.generate(requests)
    assert [c.tokens for c in here] == [c.tokens for c in there]
    take_over(sent.model, packed((name, torch.zeros_like(value)) for name, value in merged_weights(policy.model)))
    assert not any(p.any() for p in sent.model.parameters())
