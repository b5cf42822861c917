"""What a model's attention can see: masks for rows of different lengths, full or sliding-window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from etude.errors import InputError

_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class AttentionPlan:
    """How a model's layers attend, read off its configuration.

    `kinds` are the kinds of layer the model distinguishes (empty: it takes one mask for all). `window` is the width of sliding-window attention, or None.
    `additive` says that masks must be numbers to add instead of booleans.
    """

    layers: int
    kinds: tuple[str, ...]
    window: int | None
    additive: bool
    dtype: torch.dtype
    bytes_per_token: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> AttentionPlan:
        """Raises InputError for models with layers that are not attention (state-space, linear attention): they keep no keys and values to batch by."""
        config = model.config.get_text_config()
        kinds = tuple(sorted(set(getattr(config, "layer_types", None) or ())))
        strange = [k for k in kinds if k not in (_FULL, _SLIDING)]
        if strange:
            raise InputError(
                f"the model type {config.model_type!r} has layers of kind {', '.join(strange)}; the embedded sampler expects full or sliding-window attention in "
                "every layer. Use a model whose layers are attention layers."
            )
        window = getattr(config, "sliding_window", None)
        if window is not None and getattr(config, "use_sliding_window", True) is False:
            window = None
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        parameter = next(model.parameters())
        return cls(
            layers=config.num_hidden_layers,
            kinds=kinds if _SLIDING in kinds else (),
            window=window,
            additive=getattr(config, "_attn_implementation", "sdpa") not in ("sdpa", "etude"),
            dtype=parameter.dtype,
            bytes_per_token=2 * config.num_hidden_layers * heads * width * parameter.element_size(),
        )

    @property
    def full(self) -> bool:
        """True when every layer sees everything before it."""
        return self.window is None

    def mask(self, starts_B: Tensor, width: int, span: int, uniform: bool = False) -> Tensor | dict[str, Tensor] | None:
        """Mask for inputs [B, width] that begin at position starts_B of their rows and attend to the rows' first `span` positions.

        `uniform` says that all rows start at the same place. Returns [B, 1, width, span] (a dict of them where layers differ), or None when nothing is hidden.
        """
        if uniform and width == 1 and (self.window is None or span <= self.window):
            return None if not self.kinds else {kind: self._finish(torch.ones(1, 1, 1, span, dtype=torch.bool, device=starts_B.device)) for kind in self.kinds}
        query_BT = starts_B[:, None] + torch.arange(width, device=starts_B.device)
        key_S = torch.arange(span, device=starts_B.device)
        causal = (key_S <= query_BT[..., None])[:, None]
        if self.window is None:
            return self._finish(causal)
        sliding = causal & (key_S > query_BT[..., None] - self.window)[:, None]
        if not self.kinds:
            return self._finish(sliding)
        return {kind: self._finish(sliding if kind == _SLIDING else causal) for kind in self.kinds}

    def _finish(self, visible: Tensor) -> Tensor:
        if not self.additive:
            return visible
        return torch.zeros(visible.shape, dtype=self.dtype, device=visible.device).masked_fill(~visible, torch.finfo(self.dtype).min)
