"""The process that a rank lives in: it waits for what the main process asks of all ranks, does its part, and says how that went."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from etude.config import LearnerConfig
from etude.errors import EtudeError
from etude.models.fsdp.sharded import ShardedLearner, sharded_model
from etude.models.fsdp.shards import write_shards
from etude.models.fsdp.shared import SharedTensors
from etude.objectives import Objective
from etude.types import Metrics, Trajectory

DONE, REFUSED, FAILED = "done", "refused", "failed"
"""How an answer begins: with a result, with an error after which the ranks are as they were, or with why this rank ends."""


class Rank:
    """What can be asked of a rank. All ranks are asked the same, and all have to be; the first one's result is the answer."""

    learner: ShardedLearner
    live: SharedTensors
    """Where the weights that train are handed over, both ways."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh

    def build(self, skeleton: Any, values: SharedTensors, live: SharedTensors, config: LearnerConfig, options: dict[str, Any]) -> None:
        self.skeleton, self.live = skeleton, live
        formats = {name: value.dtype for name, value in live.items()}
        self.learner = ShardedLearner(sharded_model(skeleton, values, self.mesh), config, mesh=self.mesh, formats=formats, **options)

    def update(self, units: Sequence[Sequence[Trajectory]], objective: Objective, step: int | None, lr: float, total_steps: int) -> tuple[Metrics, int]:
        self.learner.lr, self.learner.total_steps = lr, total_steps
        metrics = self.learner.update(units, objective, step=step)
        self.learner.give(self.live)
        return metrics, self.learner.steps

    def logprobs(self, trajectories: Sequence[Trajectory], reference: bool | Literal["start"]) -> list[list[float]]:
        return self.learner.logprobs(trajectories, reference=reference)

    def put(self) -> None:
        self.learner.put(self.live)

    def reference(self, values: SharedTensors) -> None:
        self.learner.reference(sharded_model(self.skeleton.requires_grad_(False), values, self.mesh))

    def reset_reference(self, keep: float) -> None:
        self.learner.reset_reference(keep=keep)

    def restart(self, total_steps: int) -> None:
        self.learner.restart(total_steps=total_steps)

    def state(self) -> dict[str, Any]:
        return self.learner.state()[0]

    def write(self, folder: Path) -> None:
        write_shards(folder, self.learner.state()[1])

    def load(self, plain: dict[str, Any], values: SharedTensors, shards: Path | None) -> None:
        self.learner.load(plain, values, shards)


def serve(number: int, pipes: Sequence[Connection], store: str, device: str, threads: int) -> None:
    """Be rank `number` until the main process closes its end of the pipe, or is gone. device: `cpu`, or `cuda` for the GPU of that number."""
    # The main process says when to stop: it finishes its step after the first of these signals, and needs the ranks for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="torch")
    for other in pipes:
        if other is not pipes[number]:
            other.close()
    pipe = pipes[number]
    rank: Rank | None = None
    try:
        rank = _joined(number, len(pipes), store, device, threads)
        _work(rank, number, pipe)
    except torch.OutOfMemoryError as error:
        _end(pipe, f"GPU memory ran out on rank {number} ({_first_line(error)}); {_relief(rank)}")
    except Exception as error:
        _end(pipe, f"rank {number} failed: {type(error).__name__}: {_first_line(error)}")
    dist.destroy_process_group()


def _joined(number: int, count: int, store: str, device: str, threads: int) -> Rank:
    """The rank, once all have found each other."""
    if sys.platform == "linux":
        # All ranks are on this machine; nobody outside it is to be listened to.
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(number)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=number, world_size=count)
    return Rank(init_device_mesh(device, (count,)))


def _work(rank: Rank, number: int, pipe: Connection) -> None:
    while (asked := _received(pipe)) is not None:
        pipe.send(_answer(rank, number, *asked))
        # What was sent may be as large as the model.
        del asked
        if torch.cuda.is_initialized():
            # The sampler may use the same GPU in between.
            torch.cuda.empty_cache()


def _answer(rank: Rank, number: int, command: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        result = getattr(rank, command)(*arguments)
    except EtudeError as error:
        return REFUSED, error
    return DONE, result if number == 0 else None


def _received(pipe: Connection) -> tuple[str, tuple[Any, ...]] | None:
    try:
        return pipe.recv()
    except EOFError:
        return None


def _end(pipe: Connection, why: str) -> NoReturn:
    """At once: what this process shares with others would wait for them, and they for it."""
    with suppress(OSError):
        pipe.send((FAILED, why))
    os._exit(1)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _relief(rank: Rank | None) -> str:
    budget = f" (now {rank.learner.budget})" if rank is not None and hasattr(rank, "learner") else ""
    return f"lower --micro-batch-tokens{budget}, add --gradient-checkpointing, use more --ranks, or lower --slots, whose sampler shares the first GPU"
