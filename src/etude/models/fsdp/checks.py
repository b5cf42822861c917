"""What has to be true before ranks are started: everything that can be wrong is said before compute is spent."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from typing import Any

import torch

from etude.config import LearnerConfig
from etude.errors import InputError

CPU_RANKS = 2


def learner_config(config: LearnerConfig, learners: int) -> LearnerConfig:
    """How weights are updated, where `--learners` has a word in it too. Raises InputError for numbers of processes that do not go together."""
    if learners > 1:
        if config.ranks not in (0, learners):
            raise InputError(
                f"--learners is {learners}, and --ranks is {config.ranks}: both say how many processes update weights; expected the same, or one of them"
            )
        return replace(config, learner="fsdp", ranks=learners)
    if config.learner == "single" and config.ranks > 1:
        raise InputError(f"--ranks is {config.ranks}, and --learner single has no ranks; expected --learner fsdp with it, or --ranks 0")
    if config.learner == "fsdp" and learners and config.ranks != 1:
        raise InputError(
            f"--learners is 1, and --learner fsdp has {config.ranks or 'several'} ranks; expected --learners {config.ranks or 2}, or one of the two options"
        )
    return config


def check_fsdp(config: LearnerConfig, device: torch.device, trajectories: int) -> None:
    """Whether weights on this device can be updated by `config.ranks` ranks.

    trajectories: how many an optimiser step has that can be dealt out. Raises InputError.
    """
    ranks = config.ranks
    if not torch.distributed.is_available():
        raise InputError("this torch was built without torch.distributed, which --learner fsdp runs on; install an official build, or leave --learner out")
    if (started := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise InputError(
            f"WORLD_SIZE is {started}: this looks like one of {started} processes of torchrun. Étude starts its {ranks} ranks itself, on one machine: run it without torchrun"
        )
    _check_version()
    if device.type == "cuda":
        if not torch.distributed.is_nccl_available():
            raise InputError("this torch has no NCCL, which ranks on GPUs talk by; install an official CUDA build, or use --device cpu")
        if ranks > (gpus := torch.cuda.device_count()):
            raise InputError(f"--ranks is {ranks}, and torch sees {gpus} GPUs; expected one GPU a rank: at most --ranks {gpus}")
    elif device.type != "cpu":
        raise InputError(f"the model is on {device.type}, and ranks run on GPUs (NCCL) or the CPU (gloo); use --device cuda or cpu")
    elif not torch.distributed.is_gloo_available():
        raise InputError("this torch has no gloo, which ranks on a CPU talk by; install an official build, or leave --learner out")
    if ranks > trajectories:
        raise InputError(
            f"--ranks is {ranks}, and an optimiser step has {trajectories} units to deal out; lower --ranks, raise --tasks-per-step or lower --mini-batches"
        )


def default_ranks(device: torch.device) -> int:
    """One for each GPU; on a CPU as many as show that it works."""
    return torch.cuda.device_count() if device.type == "cuda" else CPU_RANKS


def check_sendable(objective: Any, method: str) -> None:
    """Raises InputError for an objective that no other process can be sent, naming the method that it is of."""
    try:
        pickle.dumps(objective)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"the objective of {method} can't be sent to the ranks of --learner fsdp ({str(error).splitlines()[0]}); functions in it have to stand at the top "
            "of a module (functools.partial gives them settings). Leave --learner out, or change the objective"
        ) from error


def _check_version() -> None:
    from torch.distributed import checkpoint, fsdp

    wanted = (hasattr(fsdp, "FSDPModule") and hasattr(fsdp.FSDPModule, "set_force_sum_reduction_for_comms"), hasattr(checkpoint, "HuggingFaceStorageWriter"))
    if not all(wanted):
        raise InputError(f"torch {torch.__version__} has not all that --learner fsdp needs; install a newer one, such as 2.13, or leave --learner out")
