"""Logits only where they are needed.

The vocabulary projection is the widest layer of a small model. A hook in front of it keeps the hidden states of chosen positions, so that the model's own forward,
with whatever scaling or soft-capping it applies to logits, runs on those alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def logits_at(model: torch.nn.Module, rows_N: Tensor, columns_N: Tensor) -> Iterator[None]:
    """While active, the model's forward returns logits [1, N, V] for positions (rows_N[i], columns_N[i]) of its [B, T] input.

    Works for any causal LM whose output embedding takes hidden states [B, T, D], wrapped in adapters or not.
    """

    def keep(_module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (arguments[0][rows_N, columns_N].unsqueeze(0), *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()
