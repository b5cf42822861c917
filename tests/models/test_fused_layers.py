"""Hand-written layers: values worked out by hand, and the gradients of the plain formulas, over several blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from etude.models import fused_layers
from etude.models.fused_layers import gated_unit, joined_linear, rms_norm, rotated


@pytest.fixture(autouse=True, params=[2**20, 1], ids=["one block", "blocks of 16 rows"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_layers, "BLOCK_BYTES", request.param)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def assert_same(ours: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Same values, and the same gradients of every input that takes one, in float64."""
    value, expected = ours(*inputs), plain(*inputs)
    torch.testing.assert_close(value, expected)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=expected.dtype)
    wanted = [t for t in inputs if t.requires_grad]
    for a, b in zip(torch.autograd.grad(value, wanted, direction), torch.autograd.grad(expected, wanted, direction), strict=True):
        torch.testing.assert_close(a, b)


def test_norm_by_hand() -> None:
    # The mean square of (3, 4) is 12.5; with eps 12.5 the root is 5.
    torch.testing.assert_close(rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 10.0]), 12.5), torch.tensor([[0.6, 8.0]]))


def test_norm_has_the_plain_gradients() -> None:
    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * weight

    assert_same(lambda x, w: rms_norm(x, w, 1e-3), plain, drawn(37, 6), drawn(6, seed=1))


def test_gated_unit_by_hand() -> None:
    # gate 2, up 3: silu(2) = 2 / (1 + e^-2); down doubles.
    gate, up, down = torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([[2.0]])
    out = gated_unit(torch.tensor([[1.0]]), torch.cat([gate, up]), gate, up, down)
    assert out.item() == pytest.approx(2 / (1 + math.exp(-2)) * 3 * 2)


@pytest.mark.parametrize("frozen", [(), (0,), (1, 2), (3,), (1,)], ids=str)
def test_gated_unit_has_the_plain_gradients(frozen: tuple[int, ...]) -> None:
    inputs = [drawn(37, 4), drawn(5, 4, seed=1), drawn(5, 4, seed=2), drawn(4, 5, seed=3)]
    inputs = [t.detach() if i in frozen else t for i, t in enumerate(inputs)]

    def plain(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T

    assert_same(lambda x, g, u, d: gated_unit(x, torch.cat([g, u]).detach(), g, u, d), plain, *inputs)


@pytest.mark.parametrize("with_bias", [False, True])
def test_joined_linear_has_the_gradients_of_its_parts(with_bias: bool) -> None:
    biases = [drawn(3, seed=4), drawn(2, seed=5)] if with_bias else []

    def ours(x: Tensor, a: Tensor, b: Tensor, *biases: Tensor) -> Tensor:
        bias = torch.cat(biases).detach() if biases else None
        return joined_linear(x, torch.cat([a, b]).detach(), bias, [a, b], biases)

    def plain(x: Tensor, a: Tensor, b: Tensor, *biases: Tensor) -> Tensor:
        parts = [x @ a.T, x @ b.T]
        return torch.cat([p + c for p, c in zip(parts, biases, strict=True)] if biases else parts, dim=1)

    assert_same(ours, plain, drawn(37, 4), drawn(3, 4, seed=1), drawn(2, 4, seed=2), *biases)


def test_joined_linear_without_gradient_for_its_weights() -> None:
    x, a, b = drawn(5, 4), drawn(3, 4, seed=1).detach(), drawn(2, 4, seed=2)
    joined_linear(x, torch.cat([a, b]).detach(), None, [a, b], []).sum().backward()
    assert b.grad is not None
    torch.testing.assert_close(b.grad, x.detach().sum(0).expand(2, -1))


def test_rotation_by_hand() -> None:
    # A quarter turn takes (1, 2 | 3, 4) to (-3, -4 | 1, 2).
    zero, one = torch.zeros(1, 1, 4), torch.ones(1, 1, 4)
    torch.testing.assert_close(rotated(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), zero, one), torch.tensor([[[-3.0, -4.0, 1.0, 2.0]]]))


def test_rotation_has_the_plain_gradients() -> None:
    angle = drawn(37, 1, 3, seed=1).detach().repeat(1, 1, 2)
    cos, sin = angle.cos(), angle.sin()

    def plain(x: Tensor) -> Tensor:
        return x * cos + torch.cat([-x[..., 3:], x[..., :3]], dim=-1) * sin

    assert_same(lambda x: rotated(x, cos, sin), plain, drawn(37, 2, 6))
