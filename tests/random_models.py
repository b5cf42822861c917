"""Small random models of several architectures, in float32, with weights large enough that greedy choices differ from place to place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from etude.models.language import LanguageModel
from etude.models.sampling import DecodeClock

if TYPE_CHECKING:
    from etude.models.vllm_sampler import VLLMSampler

VOCABULARY = 60
EOS = 1


class CharacterTokenizer:
    """Token i is one printable character: enough for an engine, which only decodes."""

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(48 + t) for t in tokens if not (skip_special_tokens and t == EOS))


def with_vllm(config: pytest.Config) -> bool:
    # Where the whole suite is collected, this file comes too late to add an option.
    return config.getoption("--sampler", default="engine") == "vllm"


def build(architecture: str, head: int = 8) -> PreTrainedModel:
    """head: width of an attention head."""
    shared = {"vocab_size": VOCABULARY, "hidden_size": 4 * head, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    shared |= {"max_position_embeddings": 96, "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": 0, "initializer_range": 0.3}
    torch.manual_seed(7)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shared, num_key_value_heads=2, tie_word_embeddings=True))
    elif architecture == "gpt2":
        config = GPT2Config(
            vocab_size=VOCABULARY, n_embd=4 * head, n_layer=2, n_head=4, n_positions=96, bos_token_id=None, eos_token_id=EOS, initializer_range=0.3
        )
        model = GPT2LMHeadModel(config)
    elif architecture == "mistral-sliding":
        model = MistralForCausalLM(MistralConfig(**shared, num_key_value_heads=2, sliding_window=6))
    elif architecture == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**shared, num_key_value_heads=2, head_dim=head, sliding_window=6))
    elif architecture == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shared, num_key_value_heads=2, head_dim=head))
    else:
        model = LanguageModel.load(architecture, device="cpu").model
        # The tests' prompts and end token are the same for all.
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = EOS, 0
    return model.eval()


ARCHITECTURES = ("llama", "gpt2", "mistral-sliding", "gemma2", "qwen3")


VLLM_HEAD = 32
"""Width of an attention head that vLLM's kernels take on any device."""


class VLLMPool:
    """Samplers over vLLM, which takes seconds to start: a test gets one that no other is using, as if it were new."""

    SLOTS = 64

    def __init__(self) -> None:
        self.all: dict[int, list[VLLMSampler]] = {}
        self.taken: set[int] = set()

    def take(self, model: PreTrainedModel, slots: int) -> VLLMSampler:
        from etude.models.vllm_sampler import VLLMSampler

        mine = self.all.setdefault(id(model), [])
        sampler = next((s for s in mine if id(s) not in self.taken), None)
        if sampler is None:
            sampler = VLLMSampler(model, CharacterTokenizer(), eos_ids=[EOS], context_length=96, slots=self.SLOTS)
            mine.append(sampler)
        self.taken.add(id(sampler))
        sampler.slots = min(slots, self.SLOTS)
        sampler.clock = DecodeClock()
        # Nothing that another test computed is read.
        sampler.update(0)
        return sampler

    def give_back(self) -> None:
        for sampler in (s for mine in self.all.values() for s in mine if id(s) in self.taken):
            sampler.abort_all(sampler.in_flight)
        self.taken.clear()


POOL = VLLMPool()
