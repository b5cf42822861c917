"""Logits only where they are needed, and log-probabilities without a second copy of them.

The vocabulary projection is the widest layer of a small model. A hook in front of it keeps the hidden states of chosen positions, so that the model's own
forward, with whatever scaling or soft-capping it applies to logits, runs on those alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_BYTES = 2**20
"""Rows of logits are worked on a block of this size at a time, so that the several passes over a block find it in the processor's cache."""


@contextmanager
def logits_at(model: torch.nn.Module, rows_N: Tensor, columns_N: Tensor) -> Iterator[None]:
    """While active, the model's forward returns logits [1, N, V] for positions (rows_N[i], columns_N[i]) of its [B, T] input.

    Works for any causal LM whose output embedding takes hidden states [B, T, D], wrapped in adapters or not.
    """

    def keep(_module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0]
        # One flat index: its backward is an index_add, which is fast where many completions share a prompt's last position.
        flat = rows_N * hidden.shape[1] + columns_N
        return (hidden.flatten(0, 1).index_select(0, flat).unsqueeze(0), *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def row_blocks(logits_NV: Tensor) -> Iterator[slice]:
    """Slices of the rows that fit into the cache together; on a GPU one slice of all."""
    rows = len(logits_NV)
    size = rows if logits_NV.is_cuda else max(1, BLOCK_BYTES // max(1, logits_NV.shape[1] * logits_NV.element_size()))
    return (slice(at, at + size) for at in range(0, rows, max(1, size)))


class _TokenLogprobs(torch.autograd.Function):
    """log softmax at some tokens of some rows. Only the logits are kept for the backward pass, which writes its gradient into a single new buffer."""

    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, tokens_NK: Tensor, row_N: Tensor | None) -> Tensor:
        normaliser = logits_MV.new_empty(len(logits_MV))
        for block in row_blocks(logits_MV):
            torch.logsumexp(logits_MV[block], dim=-1, out=normaliser[block])
        ctx.save_for_backward(logits_MV, tokens_NK, normaliser, row_N)
        if row_N is None:
            return logits_MV.gather(1, tokens_NK) - normaliser[:, None]
        return logits_MV[row_N[:, None], tokens_NK] - normaliser[row_N][:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits_MV, tokens_NK, normaliser, row_N = ctx.saved_tensors
        gradient_NK = gradients[0].to(logits_MV.dtype)
        result = torch.empty_like(logits_MV)
        total = gradient_NK.sum(1, keepdim=True)
        if row_N is not None:
            total = total.new_zeros(len(logits_MV), 1).index_add_(0, row_N, total)
        for block in row_blocks(logits_MV):
            part = torch.sub(logits_MV[block], normaliser[block, None], out=result[block])
            part.exp_().mul_(-total[block])
        if row_N is None:
            result.scatter_add_(1, tokens_NK, gradient_NK)
        else:
            places = row_N[:, None] * logits_MV.shape[1] + tokens_NK
            result.view(-1).index_add_(0, places.flatten(), gradient_NK.flatten())
        return result, None, None


def token_logprobs(logits_MV: Tensor, tokens_N: Tensor, row_N: Tensor | None = None) -> Tensor:
    """Log-probability, differentiable, of one token ([N], returns [N]) or of several ([N, K], returns [N, K]) under row `row_N[i]` of the logits (None: row i)."""
    if tokens_N.dim() == 2:
        return _TokenLogprobs.apply(logits_MV, tokens_N, row_N)  # type: ignore[return-value]
    return _TokenLogprobs.apply(logits_MV, tokens_N[:, None], row_N).squeeze(1)  # type: ignore[union-attr]


class _ProposalLogprobs(torch.autograd.Function):
    """The mean of log softmax over tokens drawn from softmax(logits / temperature), which counts as a constant."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, temperature: float) -> Tensor:
        result = logits_NV.new_empty(len(logits_NV))
        for block in row_blocks(logits_NV):
            part = logits_NV[block]
            result[block] = ((part / temperature).softmax(-1) * part).sum(-1) - torch.logsumexp(part, dim=-1)
        ctx.save_for_backward(logits_NV)
        ctx.temperature = temperature
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (logits_NV,) = ctx.saved_tensors
        gradient_N = gradients[0].to(logits_NV.dtype)
        result = torch.empty_like(logits_NV)
        for block in row_blocks(logits_NV):
            part = logits_NV[block]
            torch.sub((part / ctx.temperature).softmax(-1), part.softmax(-1), out=result[block])
        return result.mul_(gradient_N[:, None]), None


def proposal_logprobs(logits_NV: Tensor, temperature: float) -> Tensor:
    """sum_a q(a) log pi(a) of each row, with pi = softmax(logits) and q = softmax(logits / temperature), q without gradient. Returns [N].

    Its gradient with respect to the logits is q - pi: 0 at temperature 1.
    """
    return _ProposalLogprobs.apply(logits_NV, temperature)  # type: ignore[return-value]
