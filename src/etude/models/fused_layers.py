"""Layers whose forward and backward passes are written out by hand, for processors.

What a small model's update costs beside its matrix products is mostly memory traffic: every elementwise operation reads and writes whole activations, and automatic
differentiation keeps and touches them again. These functions work on a block of rows at a time, which stays in the processor's cache from one operation to the next,
and keep for the backward pass only what cannot be computed again cheaply. Each is an ordinary function of tensors with the gradients of the plain formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_BYTES = 2**20
"""Size of a block of rows of the widest activation that a function works on."""


def _row_blocks(rows: int, bytes_per_row: int) -> Iterator[slice]:
    size = max(16, BLOCK_BYTES // max(1, bytes_per_row))
    return (slice(at, min(rows, at + size)) for at in range(0, rows, size))


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        out = torch.empty_like(x_ND)
        scale = x_ND.new_empty(len(x_ND), 1)
        for block in _row_blocks(len(x_ND), x_ND.shape[1] * x_ND.element_size()):
            x, r = x_ND[block], scale[block]
            torch.linalg.vector_norm(x, dim=1, keepdim=True, out=r)
            r.square_().div_(x.shape[1]).add_(eps).rsqrt_()
            torch.mul(x, r, out=out[block]).mul_(weight_D)
        ctx.save_for_backward(x_ND, weight_D, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_ND, weight_D, scale = ctx.saved_tensors
        given = gradients[0].contiguous()
        result = torch.empty_like(x_ND)
        weight = torch.zeros_like(weight_D)
        for block in _row_blocks(len(x_ND), x_ND.shape[1] * x_ND.element_size()):
            r, g = scale[block], given[block]
            unit = x_ND[block] * r
            products = unit * g
            weight += products.sum(0)
            along = (products @ weight_D)[:, None].div_(-x_ND.shape[1])
            out = torch.mul(g, weight_D, out=result[block])
            out.addcmul_(unit, along).mul_(r)
        return result, weight, None


def rms_norm(x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich, arXiv:1910.07467, eq. 4). x_ND: [N, D]; returns [N, D]."""
    return _RMSNorm.apply(x_ND, weight_D, eps)  # type: ignore[return-value]


class _GatedUnit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, joint: Tensor, gate_ID: Tensor, up_ID: Tensor, down_DI: Tensor) -> Tensor:
        width = len(gate_ID)
        both = x_ND.new_empty(len(x_ND), 2 * width)
        out = x_ND.new_empty(len(x_ND), len(down_DI))
        for block in _row_blocks(len(x_ND), both.shape[1] * both.element_size()):
            gate, up = torch.mm(x_ND[block], joint.t(), out=both[block]).split(width, dim=1)
            torch.mm(torch.nn.functional.silu(gate).mul_(up), down_DI.t(), out=out[block])
        ctx.save_for_backward(x_ND, both, joint, down_DI)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_ND, both, joint, down_DI = ctx.saved_tensors
        needs_x, _, needs_gate, needs_up, needs_down = ctx.needs_input_grad
        width = down_DI.shape[1]
        given = gradients[0].contiguous()
        to_x = torch.empty_like(x_ND) if needs_x else None
        to_joint = torch.zeros_like(joint) if needs_gate or needs_up else None
        to_down = torch.zeros_like(down_DI) if needs_down else None
        for block in _row_blocks(len(x_ND), both.shape[1] * both.element_size()):
            gate, up = both[block].split(width, dim=1)
            g = given[block]
            to_hidden = g @ down_DI
            sigmoid = gate.sigmoid()
            active = sigmoid * gate
            if to_down is not None:
                to_down.addmm_(g.t(), active * up)
            to_both = torch.empty_like(both[block])
            to_gate, to_up = to_both.split(width, dim=1)
            torch.mul(to_hidden, active, out=to_up)
            # The derivative of gate * sigmoid(gate): sigmoid + active * (1 - sigmoid).
            slope = sigmoid.addcmul(active, sigmoid, value=-1).add_(active)
            torch.mul(slope.mul_(up), to_hidden, out=to_gate)
            if to_x is not None:
                torch.mm(to_both, joint, out=to_x[block])
            if to_joint is not None:
                to_joint.addmm_(to_both.t(), x_ND[block])
        to_weights = (None, None) if to_joint is None else to_joint.split(width)
        return to_x, None, *to_weights, to_down


def gated_unit(x_ND: Tensor, joint: Tensor, gate_ID: Tensor, up_ID: Tensor, down_DI: Tensor) -> Tensor:
    """(silu(x gate^T) * (x up^T)) down^T, the gated linear unit SwiGLU (Shazeer, arXiv:2002.05202, eq. 6).

    x_ND: [N, D]. gate_ID, up_ID: [I, D] weights that gradients go to; joint: [2I, D] the same numbers in one block. down_DI: [D, I]. Returns [N, D].
    """
    return _GatedUnit.apply(x_ND, joint, gate_ID, up_ID, down_DI)  # type: ignore[return-value]


class _JoinedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, joint: Tensor, bias: Tensor | None, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, joint)
        ctx.sizes = [len(p) for p in parts if p.ndim == 2]
        return torch.nn.functional.linear(x_ND, joint, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_ND, joint = ctx.saved_tensors
        g = gradients[0]
        parts = ctx.needs_input_grad[3:]
        to_x = g @ joint if ctx.needs_input_grad[0] else None
        count = len(ctx.sizes)
        nothing = (None,) * count
        to_weights = (g.t() @ x_ND).split(ctx.sizes) if any(parts[:count]) else nothing
        biases = g.sum(0).split(ctx.sizes) if any(parts[count:]) else nothing[: len(parts) - count]
        return to_x, None, None, *to_weights, *biases


def joined_linear(x_ND: Tensor, joint: Tensor, bias: Tensor | None, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Several linear layers on the same input as one product: [N, D] to their outputs side by side.

    joint, bias: the numbers of `weights` and `biases` end to end, in one block each; gradients go to `weights` and `biases` (none where bias is None).
    """
    return _JoinedLinear.apply(x_ND, joint, bias, *weights, *biases)  # type: ignore[return-value]


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NHD: Tensor, cos_N1D: Tensor, sin_N1D: Tensor) -> Tensor:
        ctx.save_for_backward(cos_N1D, sin_N1D)
        return _turned(x_NHD, cos_N1D, sin_N1D, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        cos_N1D, sin_N1D = ctx.saved_tensors
        return _turned(gradients[0], cos_N1D, sin_N1D, -1), None, None


def _turned(x_NHD: Tensor, cos_N1D: Tensor, sin_N1D: Tensor, direction: int) -> Tensor:
    half = x_NHD.shape[-1] // 2
    out = torch.empty(x_NHD.shape, dtype=x_NHD.dtype, device=x_NHD.device)
    for block in _row_blocks(len(x_NHD), 2 * x_NHD[0].numel() * x_NHD.element_size()):
        x, o, cos, sin = x_NHD[block], out[block], cos_N1D[block], sin_N1D[block]
        first, second = x.split(half, dim=-1)
        torch.mul(x, cos, out=o)
        o[..., :half].addcmul_(second, sin[..., :half], value=-direction)
        o[..., half:].addcmul_(first, sin[..., half:], value=direction)
    return out


def rotated(x_NHD: Tensor, cos_N1D: Tensor, sin_N1D: Tensor) -> Tensor:
    """Rotary position embedding (Su et al., arXiv:2104.09864, eq. 34) in the two-halves layout: x * cos + (-second half, first half) * sin.

    x_NHD: [N, heads, D]. cos_N1D, sin_N1D: [N, 1, D], whose two halves are equal. Returns [N, heads, D].
    """
    return _Rotated.apply(x_NHD, cos_N1D, sin_N1D)  # type: ignore[return-value]
