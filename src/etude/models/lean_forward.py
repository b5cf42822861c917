"""The learner's forward pass of a Llama-like model on a processor, over the layers of `fused_layers`.

It walks the model's own modules in the order of their own forward, on a flat micro-batch, and does the vocabulary projection only where trained tokens are predicted.
Layers that are more than a weight (adapters, biases in the feed-forward part) are called as they are. A model is taken only when its logits for a few tokens are those of
its own forward; any other goes on by that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etude.models.block_attention import BlockPlan, alike, attention, no_mask
from etude.models.fused_layers import gated_unit, joined_linear, rms_norm, rotated
from etude.models.lean_decoder import Projection, is_llama_like, residual


class LeanForward:
    """Forward passes of one model. Make it with `of`; the model's attention has to take blocks."""

    def __init__(self, model: Any) -> None:
        body = model.get_decoder()
        self.rotary = body.rotary_emb
        self.embed = body.embed_tokens
        self.norm = body.norm
        self.head = model.get_output_embeddings()
        self.layers = list(body.layers)
        self.qkv = [Projection([a.q_proj, a.k_proj, a.v_proj]) for a in (layer.self_attn for layer in self.layers)]
        self.gate_up = [Projection([m.gate_proj, m.up_proj]) for m in (layer.mlp for layer in self.layers)]

    @classmethod
    def of(cls, model: Any) -> LeanForward | None:
        """A forward pass for the model, or None where it is not of a kind that this one knows, or not in float32 on a CPU."""
        parameter = next(model.parameters())
        if parameter.device.type != "cpu" or any(p.dtype != torch.float32 for p in model.parameters()) or not is_llama_like(model):
            return None
        try:
            lean = cls(model)
        except AttributeError:
            return None
        return lean if lean._agrees(model) else None

    @torch.no_grad()
    def _agrees(self, model: Any) -> bool:
        """Whether logits are those of the model's own forward, for two prompts and three completions."""
        vocabulary = model.config.get_text_config().vocab_size
        tokens = (torch.arange(12)[None] * 7 + 1) % vocabulary
        positions = torch.tensor([[0, 1, 2, 0, 3, 4, 1, 2, 3, 3, 4, 5]])
        plan = BlockPlan.of([3, 1], [2, 3, 3], [0, 1, 0], tokens.device)
        lean = self(tokens, positions, plan, torch.arange(12))
        own = model(input_ids=tokens, attention_mask=no_mask(model, tokens.device), position_ids=positions, use_cache=False, blocks=plan).logits[0]
        return alike(lean, own)

    def __call__(self, inputs: Tensor, positions: Tensor, blocks: BlockPlan, columns_N: Tensor) -> Tensor:
        """Logits [N, V] at some columns of a flat micro-batch: inputs and positions [1, W]."""
        x = self.embed(inputs[0])
        cos, sin = (t[0, :, None] for t in self.rotary(x[None], positions))
        for number, layer in enumerate(self.layers):
            x = self._attended(number, layer, x, cos, sin, blocks)
            x = self._transformed(number, layer, x)
        return self.head(_normed(self.norm, x.index_select(0, columns_N)))

    def _attended(self, number: int, layer: Any, x: Tensor, cos: Tensor, sin: Tensor, blocks: BlockPlan) -> Tensor:
        module = layer.self_attn
        projection = self.qkv[number]
        normed = _normed(layer.input_layernorm, x)
        if projection.plain:
            weight, bias = projection.joint()
            biases = [] if bias is None else [p.bias for p in projection.layers]
            joined = joined_linear(normed, weight, bias, [p.weight for p in projection.layers], biases)
        else:
            joined = projection(normed)
        heads = joined.unflatten(1, (-1, module.head_dim))
        values = module.v_proj.out_features // module.head_dim
        qk, v = heads.split([heads.shape[1] - values, values], dim=1)
        queries = qk.shape[1] - values
        if hasattr(module, "q_norm"):
            qk = torch.cat([_normed(module.q_norm, qk[:, :queries]), _normed(module.k_norm, qk[:, queries:])], dim=1)
        q, k = rotated(qk, cos, sin).split([queries, values], dim=1)
        q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
        out = attention(module, q, k, v, None, scaling=module.scaling, blocks=blocks)[0][0].flatten(1)
        return residual(x, module.o_proj, out)

    def _transformed(self, number: int, layer: Any, x: Tensor) -> Tensor:
        module, projection = layer.mlp, self.gate_up[number]
        normed = _normed(layer.post_attention_layernorm, x)
        if not projection.plain or type(module.down_proj) is not torch.nn.Linear or module.down_proj.bias is not None:
            return x + module(normed)
        weight, bias = projection.joint()
        if bias is not None:
            return x + module(normed)
        return x + gated_unit(normed, weight, module.gate_proj.weight, module.up_proj.weight, module.down_proj.weight)


def _normed(norm: Any, x: Tensor) -> Tensor:
    return rms_norm(x.reshape(-1, x.shape[-1]), norm.weight, norm.variance_epsilon).view(x.shape)
