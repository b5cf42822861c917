"""One decode step of a Llama-like model with as few operations as it takes.

A decode step does little arithmetic, so what it costs is the number of operations, above all for small models and on GPUs. Llama, Mistral, Qwen2 and Qwen3 models are one
shape: norm, query-key-value projection, rotation, attention, output projection, norm, gated linear unit. This walks the model's own modules in that order. Query,
key and value weights, and gate and up weights, are laid side by side in memory, each parameter a view of its part, so that each triple or pair is one multiplication
and updates of the parameters need no copying.

Any other model is decoded by its own forward. So is one that does not pass the check at the start: its logits must be those of its own forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu

from etude.models.block_attention import alike
from etude.models.kv_cache import SlotCache

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def is_llama_like(model: Any) -> bool:
    """Whether a model says that it is of the shape above, with attention to everything before."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    return config.model_type in MODEL_TYPES and window is None and not kinds and getattr(config, "hidden_act", "") == "silu"


class Projection:
    """Several linear layers on the same input as one: [.., in] to their outputs side by side.

    Their weights become views of one block. Layers that are more than a weight and a bias (adapters) are called one by one.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = list(layers)
        self.plain = all(type(layer) is torch.nn.Linear for layer in layers) and len({layer.bias is None for layer in layers}) == 1
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if not self.plain:
            return torch.cat([layer(x) for layer in self.layers], dim=-1)
        return few_rows_linear(x, *self.joint())

    def joint(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of all layers end to end, without gradients; only where all are plain."""
        if self._weight is None or self._moved():
            self._join()
        assert self._weight is not None
        return self._weight, self._bias

    def _moved(self) -> bool:
        """True when a parameter was given other memory since, as `model.to` and loading may do."""
        assert self._weight is not None
        at = 0
        for layer in self.layers:
            weight = layer.weight
            if weight.data_ptr() != self._weight.data_ptr() + at * self._weight.element_size():
                return True
            at += weight.numel()
        return False

    def _join(self) -> None:
        with torch.no_grad():
            self._weight = joined([layer.weight for layer in self.layers])
            self._bias = None if self.layers[0].bias is None else joined([layer.bias for layer in self.layers])


def joined(parameters: Sequence[torch.nn.Parameter]) -> Tensor:
    """The parameters' values end to end along the first axis; each parameter becomes a view of its part. Those that lie so already stay where they are."""
    first, rows = parameters[0].data, sum(len(p) for p in parameters)
    ends = [first.data_ptr()]
    for p in parameters:
        ends.append(ends[-1] + p.numel() * p.element_size())
    room = (first.untyped_storage().data_ptr() + first.untyped_storage().nbytes()) >= ends[-1]
    if room and [p.data_ptr() for p in parameters] == ends[:-1] and all(p.is_contiguous() for p in parameters):
        return first.as_strided((rows, *first.shape[1:]), first.stride())
    block = torch.cat([p.data for p in parameters])
    at = 0
    for p in parameters:
        p.data = block[at : at + p.shape[0]]
        at += p.shape[0]
    return block


class LeanDecoder:
    """Decodes for one model. Make it with `of`."""

    def __init__(self, model: Any) -> None:
        body = model.get_decoder()
        config = model.config.get_text_config()
        self.rotary = body.rotary_emb
        self.embed = body.embed_tokens
        self.norm = body.norm
        self.head = model.get_output_embeddings()
        self.key_heads: int = config.num_key_value_heads
        self.heads: int = config.num_attention_heads
        self.width: int = body.layers[0].self_attn.head_dim
        self.scaling: float = body.layers[0].self_attn.scaling
        self.layers = list(body.layers)
        self.qkv = [Projection([a.q_proj, a.k_proj, a.v_proj]) for a in (layer.self_attn for layer in self.layers)]
        self.gate_up = [Projection([m.gate_proj, m.up_proj]) for m in (layer.mlp for layer in self.layers)]
        parts = (self.embed, self.norm, self.head, *self.layers)
        self._weights = [(module._parameters, name) for part in parts for module in part.modules() for name, p in module._parameters.items() if p is not None]

    @classmethod
    def of(cls, model: Any) -> LeanDecoder | None:
        """A decoder for the model, or None where it is not of a kind that this one knows."""
        if not is_llama_like(model):
            return None
        try:
            decoder = cls(model)
        except AttributeError:
            return None
        return decoder if decoder._agrees(model) else None

    @property
    def plain(self) -> bool:
        """Whether all its layers are no more than a weight and a bias: no adapters."""
        rest = [linear for layer in self.layers for linear in (layer.self_attn.o_proj, layer.mlp.down_proj)]
        return all(p.plain for p in (*self.qkv, *self.gate_up)) and all(type(linear) is torch.nn.Linear for linear in (*rest, self.head))

    def addresses(self) -> list[int]:
        """Where the weights are."""
        return [owned[name].data_ptr() for owned, name in self._weights]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _agrees(self, model: Any) -> bool:
        """Whether logits are those of the model's own forward, on two rows of three tokens."""
        device = next(model.parameters()).device
        vocabulary = model.config.get_text_config().vocab_size
        tokens = (torch.arange(6, device=device).view(2, 3) * 7 + 1) % vocabulary
        cache = SlotCache(len(self.layers), 8)
        logits = torch.empty(0)
        for at in range(3):
            starts = torch.full((2,), at, device=device)
            cache.aim(slice(0, 2), starts, 1, at + 1, 2)
            logits = self.step(tokens[:, at], starts, cache, None)
        own = model(input_ids=tokens, use_cache=False).logits[:, -1]
        return alike(logits, own)

    def step(self, tokens_B: Tensor, starts_B: Tensor, cache: SlotCache, hidden_BS: Tensor | None) -> Tensor:
        """Logits [B, V] after one more token in each of B rows, which `cache` has been aimed at. `hidden_BS` is true where a row must not look (None: nowhere)."""
        count = len(tokens_B)
        x = self.embed(tokens_B)
        cos, sin = self.rotary(x[:, None], starts_B[:, None])
        cos, sin = cos[:, 0, None], sin[:, 0, None]
        bias = None
        if hidden_BS is not None:
            bias = torch.zeros(hidden_BS.shape, dtype=x.dtype, device=x.device).masked_fill_(hidden_BS, torch.finfo(x.dtype).min)[:, None]
        q_heads, k_heads, width = self.heads, self.key_heads, self.width
        per_key = q_heads // k_heads
        for number, layer in enumerate(self.layers):
            attention, mlp = layer.self_attn, layer.mlp
            qkv = self.qkv[number](_normed(layer.input_layernorm, x)).view(count, q_heads + 2 * k_heads, width)
            qk = qkv[:, : q_heads + k_heads]
            if hasattr(attention, "q_norm"):
                qk = torch.cat([_normed(attention.q_norm, qk[:, :q_heads]), _normed(attention.k_norm, qk[:, q_heads:])], dim=1)
            turned = torch.cat([-qk[..., width // 2 :], qk[..., : width // 2]], dim=-1)
            qk = torch.addcmul(qk * cos, turned, sin)
            keys, values = cache.update(qk[:, q_heads:, None], qkv[:, q_heads + k_heads :, None], number)
            q = (qk[:, :q_heads] * self.scaling).view(count * k_heads, per_key, width)
            scores = torch.bmm(q, keys.flatten(0, 1).transpose(1, 2)).view(count, q_heads, -1)
            if bias is not None:
                scores += bias
            weights = scores.softmax(-1, dtype=torch.float32).to(x.dtype).view(count * k_heads, per_key, -1)
            out = torch.bmm(weights, values.flatten(0, 1)).view(count, q_heads * width)
            x = residual(x, attention.o_proj, out)
            gate, up = self.gate_up[number](_normed(layer.post_attention_layernorm, x)).chunk(2, dim=-1)
            x = residual(x, mlp.down_proj, silu(gate).mul_(up))
        x = _normed(self.norm, x)
        return few_rows_linear(x, self.head.weight, self.head.bias) if type(self.head) is torch.nn.Linear else self.head(x)


LARGE = 2**18
"""Entries of a weight that does not stay in a core's cache from one step to the next."""


def _few_rows(x: Tensor, weight_OI: Tensor) -> bool:
    few = len(x) <= 4 or (len(x) <= 8 and weight_OI.shape[1] <= 1024)
    return few and x.dim() == 2 and not x.is_cuda and weight_OI.numel() >= LARGE and weight_OI.dtype == torch.float32


def few_rows_linear(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x W^T + b, [B, O]. With a few rows against a large weight a processor multiplies two to six times as fast the other way round, (W x^T)^T, and two rows faster than one.

    Which way it goes depends on shapes alone, so that runs repeat themselves.
    """
    if not _few_rows(x_BI, weight_OI):
        return linear(x_BI, weight_OI, bias_O)
    rows = len(x_BI)
    twice = torch.cat([x_BI, x_BI]) if rows == 1 else x_BI
    out = torch.mm(weight_OI, twice.t()).t()[:rows].contiguous()
    return out if bias_O is None else out + bias_O


def _normed(norm: Any, x: Tensor) -> Tensor:
    """Root-mean-square norm. On CPU the library's own is a dozen operations."""
    if x.is_cuda or x.dtype != torch.float32:
        return rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * size.square_().div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()).mul_(norm.weight)


def residual(x: Tensor, layer: Any, y: Tensor) -> Tensor:
    """x + layer(y), in one operation where the layer is a plain one without bias."""
    if type(layer) is not torch.nn.Linear:
        return x + layer(y)
    if layer.bias is None and not _few_rows(y, layer.weight):
        return torch.addmm(x, y, layer.weight.t())
    return x + few_rows_linear(y, layer.weight, layer.bias)
