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
    """log softmax at some tokens of each row. Only the logits are kept for the backward pass, which writes its gradient into a single new buffer."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, tokens_NK: Tensor) -> Tensor:
        normaliser = logits_NV.new_empty(len(logits_NV))
        for block in row_blocks(logits_NV):
            torch.logsumexp(logits_NV[block], dim=-1, out=normaliser[block])
        ctx.save_for_backward(logits_NV, tokens_NK, normaliser)
        return logits_NV.gather(1, tokens_NK) - normaliser[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits_NV, tokens_NK, normaliser = ctx.saved_tensors
        gradient_NK = gradients[0].to(logits_NV.dtype)
        result = torch.empty_like(logits_NV)
        total = gradient_NK.sum(1, keepdim=True)
        for block in row_blocks(logits_NV):
            part = torch.sub(logits_NV[block], normaliser[block, None], out=result[block])
            part.exp_().mul_(-total[block])
        result.scatter_add_(1, tokens_NK, gradient_NK)
        return result, None


def token_logprobs(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    """Log-probability under each row of logits, differentiable, of one token ([N], returns [N]) or of several ([N, K], returns [N, K])."""
    if tokens_N.dim() == 2:
        return _TokenLogprobs.apply(logits_NV, tokens_N)  # type: ignore[return-value]
    return _TokenLogprobs.apply(logits_NV, tokens_N[:, None]).squeeze(1)  # type: ignore[union-attr]


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
