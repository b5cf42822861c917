"""Small random models of several architectures, in float32, with weights large enough that greedy choices differ from place to place."""

from __future__ import annotations

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

VOCABULARY = 60
EOS = 1


class CharacterTokenizer:
    """Token i is one printable character: enough for an engine, which only decodes."""

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(48 + t) for t in tokens if not (skip_special_tokens and t == EOS))


def build(architecture: str) -> PreTrainedModel:
    shared = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    shared |= {"max_position_embeddings": 96, "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": 0, "initializer_range": 0.3}
    torch.manual_seed(7)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shared, num_key_value_heads=2, tie_word_embeddings=True))
    elif architecture == "gpt2":
        config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=96, bos_token_id=None, eos_token_id=EOS, initializer_range=0.3)
        model = GPT2LMHeadModel(config)
    elif architecture == "mistral-sliding":
        model = MistralForCausalLM(MistralConfig(**shared, num_key_value_heads=2, sliding_window=6))
    elif architecture == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**shared, num_key_value_heads=2, head_dim=8, sliding_window=6))
    elif architecture == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shared, num_key_value_heads=2, head_dim=8))
    else:
        raise ValueError(architecture)
    return model.eval()


ARCHITECTURES = ("llama", "gpt2", "mistral-sliding", "gemma2", "qwen3")


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    return build("llama")


@pytest.fixture(scope="session", params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param)
