"""State that lies in several processes, as files: torch's distributed checkpoint in its safetensors form.

Each rank writes the parts that it holds, one file a rank. Any number of ranks reads them, and a single process that has none. Where which part belongs stands as JSON
in the headers of the files, so nothing is unpickled; torch's usual form has an index that is a pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from etude.errors import CheckpointError


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a rank's parts of some tensors; every rank calls this with the same names. Plain tensors, which all ranks hold, are written by one.

    Raises CheckpointError on every rank when one could not write.
    """
    with _named(f"the learner's shards could not be written to {folder}"):
        dcp.save(dict(tensors), storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))


def read_shards(folder: Path, tensors: Mapping[str, Tensor], *, alone: bool = False) -> None:
    """Fill tensors with what was written, each rank its own parts; every rank calls this with the same names. alone: the caller is no rank.

    Raises CheckpointError when a name or a part is missing.
    """
    if not tensors:
        return
    with _named(f"the learner's shards in {folder} cannot be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(dict(tensors), storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=alone)


def kinds_in(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Whole shape and number format of every tensor there, by name. Raises CheckpointError when the files cannot be read."""
    with _named(f"the learner's shards in {folder} cannot be read"):
        metadata = dcp.HuggingFaceStorageReader(str(folder)).read_metadata()
    found = {name: entry for name, entry in metadata.state_dict_metadata.items() if isinstance(entry, TensorStorageMetadata)}
    for name, entry in found.items():
        if sum(chunk.sizes.numel() for chunk in entry.chunks) != entry.size.numel():
            raise CheckpointError(f"{folder} lacks a part of {name}: a file of it is missing")
    return {name: (entry.size, entry.properties.dtype) for name, entry in found.items()}


def read_whole(folder: Path) -> dict[str, Tensor]:
    """Every tensor there, put together on the CPU. Raises CheckpointError when something is missing."""
    tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in kinds_in(folder).items()}
    read_shards(folder, tensors, alone=True)
    return tensors


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except (dcp.CheckpointException, OSError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        causes = error.failures.values() if isinstance(error, dcp.CheckpointException) else [(error, None)]
        first = next(iter(causes), (error, None))[0]
        raise CheckpointError(f"{what}: {' '.join(str(first).split()) or type(first).__name__}") from error
