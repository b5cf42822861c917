"""Named tensors as plain arrays, which Ray's object store hands to every process of a machine without a copy."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Packed = dict[str, tuple[Any, str, tuple[int, ...]]]
"""name -> bytes as a NumPy array, number format, shape. NumPy has no bfloat16."""


@torch.no_grad()
def packed(tensors: Iterable[tuple[str, Tensor]]) -> Packed:
    """Tensors of any device as arrays, which share memory with those on the CPU."""
    return {
        name: (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors
    }


def unpacked(arrays: Packed) -> Iterator[tuple[str, Tensor]]:
    """The tensors, on the CPU, in the arrays' memory: to be copied from and never written to."""
    with warnings.catch_warnings():
        # What lies in the object store cannot be written to, which torch warns of.
        warnings.simplefilter("ignore")
        for name, (array, dtype, shape) in arrays.items():
            # Nothing at all cannot be read as another number format.
            number_format = getattr(torch, dtype)
            yield name, torch.from_numpy(array).view(number_format).view(shape) if array.size else torch.empty(shape, dtype=number_format)


@torch.no_grad()
def take_over(model: torch.nn.Module, arrays: Packed) -> None:
    """Write new values into a model's parameters in place."""
    own: Mapping[str, Tensor] = dict(model.named_parameters())
    for name, value in unpacked(arrays):
        own[name].copy_(value)
