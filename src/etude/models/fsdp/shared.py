"""Tensors that processes on one machine see together: one block of shared memory, and what lies where in it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from etude.errors import InputError

SHARED_MEMORY = Path("/dev/shm")
ALIGNED = 64
"""Tensors begin at multiples of this many bytes."""

Kind = tuple[torch.Size, torch.dtype]
"""Shape and number format of a tensor."""


class SharedTensors(Mapping[str, Tensor]):
    """Named tensors on the CPU, which one process writes and others read. Sent to another process, it is the same memory there, not a copy.

    Raises InputError where the machine has less shared memory than they take.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._places: dict[str, tuple[int, Kind]] = {}
        size = 0
        for name, (shape, dtype) in kinds.items():
            self._places[name] = (size, (shape, dtype))
            size += -(-math.prod(shape) * dtype.itemsize // ALIGNED) * ALIGNED
        _check_room(size)
        self._block = torch.empty(max(1, size), dtype=torch.uint8).share_memory_()

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> SharedTensors:
        """Room for tensors of these shapes and number formats."""
        return cls({name: (t.shape, t.dtype) for name, t in tensors.items()})

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> SharedTensors:
        """Copies of these tensors."""
        shared = cls.like(tensors)
        shared.fill(tensors)
        return shared

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the values of tensors that there is room for, from wherever they are."""
        for name, tensor in tensors.items():
            self[name].copy_(tensor)

    def __getitem__(self, name: str) -> Tensor:
        start, (shape, dtype) = self._places[name]
        return self._block[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _check_room(size: int) -> None:
    """Where shared memory is short, a write would end the process without a word."""
    if SHARED_MEMORY.is_dir() and (free := shutil.disk_usage(SHARED_MEMORY).free) < size:
        raise InputError(
            f"handing the weights to the learner's processes takes {size / 2**30:.2f} GiB of shared memory, and {SHARED_MEMORY} has {free / 2**30:.2f} GiB free; "
            "give the machine more (a container: --shm-size), or train a LoRA adapter or a smaller model"
        )
