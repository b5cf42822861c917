"""Models without the values of their tensors, as other processes are sent them: the values travel by themselves."""

from __future__ import annotations

import copy
from collections.abc import Mapping
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


def filled(skeleton: nn.Module, values: Mapping[str, Tensor], device: torch.device) -> Any:
    """The model that a skeleton is of, on a device, in memory of its own. The skeleton is changed. values: all that `tensors_of` lists, by the same names."""
    made: dict[int, Any] = {}
    for name, empty in tensors_of(skeleton).items():
        value = values[name].to(device, copy=True)
        made[id(empty)] = nn.Parameter(value, requires_grad=empty.requires_grad) if isinstance(empty, nn.Parameter) else value
    for module in skeleton.modules():
        for held in (module._parameters, module._buffers):
            for key, tensor in held.items():
                if tensor is not None:
                    held[key] = made[id(tensor)]
    return skeleton
