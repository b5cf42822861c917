"""Models without the values of their tensors, as other processes are sent them: the values travel by themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def skeleton_of(model: nn.Module) -> Any:
    """A copy of a model without the values of its tensors; ties among them stay."""
    bare: dict[int, Any] = {}
    for tensor in tensors_of(model).values():
        empty = torch.empty_like(tensor.detach(), device="meta")
        bare[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, bare)


def fill(model: nn.Module, value_of: Callable[[str, Tensor], Tensor]) -> None:
    """Put values in the place of a model's empty tensors; ties among them stay. value_of: a tensor's name and the empty one to its value, the model's own from then on."""
    made: dict[int, Tensor] = {}
    for name, empty in tensors_of(model).items():
        value = value_of(name, empty)
        made[id(empty)] = nn.Parameter(value, requires_grad=empty.requires_grad) if isinstance(empty, nn.Parameter) else value
    for module in model.modules():
        held: Any
        for held in (module._parameters, module._buffers):
            for key, tensor in held.items():
                if tensor is not None:
                    held[key] = made[id(tensor)]


def filled(skeleton: nn.Module, values: Mapping[str, Tensor], device: torch.device) -> Any:
    """The model that a skeleton is of, on a device, in memory of its own. The skeleton is changed. values: all that `tensors_of` lists, by the same names."""
    fill(skeleton, lambda name, _: values[name].to(device, copy=True))
    return skeleton
