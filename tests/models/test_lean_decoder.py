"""The lean decode step: what it decodes and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from random_models import build
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from etude.models.kv_cache import SlotCache
from etude.models.lean_decoder import LARGE, LeanDecoder, Projection, few_rows_linear, residual


def qwen2() -> PreTrainedModel:
    """With biases on queries, keys and values."""
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, initializer_range=0.3
    )
    model = Qwen2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def made(architecture: str) -> PreTrainedModel:
    return qwen2() if architecture == "qwen2" else build(architecture)


@torch.no_grad()
def decoded(decoder: LeanDecoder, rows: list[list[int]]) -> torch.Tensor:
    """Logits after rows of different lengths, fed token by token."""
    cache = SlotCache(len(decoder.layers), 16)
    logits = torch.empty(0)
    # Shorter rows begin later, so that rows stand at different positions in one step.
    longest = max(map(len, rows))
    for at in range(longest):
        active = [i for i, row in enumerate(rows) if at >= longest - len(row)]
        assert active == list(range(len(active)))
        starts = torch.tensor([at - (longest - len(rows[i])) for i in active])
        span = int(starts.max()) + 1
        cache.aim(slice(0, len(active)), starts, 1, span, len(rows))
        tokens = torch.tensor([rows[i][int(s)] for i, s in zip(active, starts, strict=True)])
        logits = decoder.step(tokens, starts, cache, torch.arange(span) > starts[:, None])
    return logits


ROWS = [[5, 9, 3, 7, 11], [8, 2, 4], [40, 41]]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_logits_are_those_of_the_model(architecture: str) -> None:
    model = made(architecture)
    decoder = LeanDecoder.of(model)
    assert decoder is not None
    expected = torch.stack([model(torch.tensor([row])).logits[0, -1] for row in ROWS])
    torch.testing.assert_close(decoded(decoder, ROWS), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "mistral-sliding"])
def test_other_models_are_left_alone(architecture: str) -> None:
    assert LeanDecoder.of(build(architecture)) is None


def test_a_model_that_computes_something_else_is_left_alone() -> None:
    model = build("llama")
    model.get_output_embeddings().register_forward_hook(lambda _m, _a, logits: torch.tanh(logits))
    model.model.layers[0].mlp.register_forward_hook(lambda _m, _a, out: 2 * out)  # type: ignore[union-attr, operator]
    assert LeanDecoder.of(model) is None


def test_updated_weights_are_used_at_once() -> None:
    model = build("llama")
    decoder = LeanDecoder.of(model)
    assert decoder is not None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.tensor([[5, 9, 3]])).logits.square().mean().backward()
    optimizer.step()
    torch.testing.assert_close(decoded(decoder, ROWS[:1]), model(torch.tensor(ROWS[:1])).logits[:, -1], atol=2e-5, rtol=0)


def test_weights_in_other_memory_are_found() -> None:
    model = build("llama")
    decoder = LeanDecoder.of(model)
    assert decoder is not None
    projection = model.model.layers[0].self_attn.k_proj  # type: ignore[union-attr]
    projection.weight.data = projection.weight.data.clone() * 1.5  # type: ignore[union-attr, operator]
    torch.testing.assert_close(decoded(decoder, ROWS[:1]), model(torch.tensor(ROWS[:1])).logits[:, -1], atol=2e-5, rtol=0)


def test_adapters_take_part() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(build("llama"), peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"))
    decoder = LeanDecoder.of(model.eval())
    assert decoder is not None
    torch.testing.assert_close(decoded(decoder, ROWS[:1]), model(torch.tensor(ROWS[:1])).logits[:, -1], atol=2e-5, rtol=0)


def test_joined_layers_share_memory_and_keep_their_values() -> None:
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 4)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([first(x), second(x)], dim=-1)
    projection = Projection([first, second])
    torch.testing.assert_close(projection(x), expected)
    assert first.weight.untyped_storage().data_ptr() == second.weight.untyped_storage().data_ptr()
    with torch.no_grad():
        second.bias += 1.0
    torch.testing.assert_close(projection(x), torch.cat([first(x), second(x)], dim=-1))


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 8, 9])
@pytest.mark.parametrize("width", [600, 1100])
def test_a_few_rows_times_a_large_weight_are_what_a_linear_layer_computes(rows: int, width: int) -> None:
    layer = torch.nn.Linear(width, LARGE // width + 1)
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(1))
    before = torch.randn(rows, layer.out_features)
    for bias in (layer.bias, None):
        out = few_rows_linear(x, layer.weight, bias)
        torch.testing.assert_close(out, torch.nn.functional.linear(x, layer.weight, bias), atol=1e-5, rtol=0)
        assert out.is_contiguous()
    torch.testing.assert_close(residual(before, layer, x), before + layer(x), atol=1e-5, rtol=0)
