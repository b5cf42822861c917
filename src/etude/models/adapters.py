"""LoRA adapters on a model: put on, merged into it for good, and merged for whoever takes copies of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from etude.config import LearnerConfig
from etude.errors import InputError, MissingExtra, first_line


def with_adapter(model: PreTrainedModel, config: LearnerConfig) -> Any:
    """The model with a fresh adapter, which alone trains. Raises InputError where the model has no such layers."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("peft", "lora", "training a LoRA adapter") from error
    targets: Any = "all-linear" if config.lora_targets == ("all-linear",) else list(config.lora_targets)
    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,  # type: ignore[arg-type]
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, adapter)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"LoRA can't be put on this model: {first_line(error)}; lora_targets must name its linear layers") from error


def merged(model: Any, folder: str) -> Any:
    """The model with a saved adapter's weights added to its own."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtra("peft", "lora", "loading a LoRA adapter") from error
    return PeftModel.from_pretrained(model, folder).merge_and_unload()  # type: ignore[operator]


def without_adapter(model: Any) -> Any:
    """The model that an adapter is on (with the adapter's layers in it), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All named tensors of a model as its checkpoints name them, with the adapter added where there is one; the model itself is left alone.

    One tensor at a time, in the weights' own number format.
    """
    dense = without_adapter(model)
    adapted = {name: module for name, module in dense.named_modules() if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer")}
    for name, parameter in dense.named_parameters():
        if any(part.startswith("lora_") for part in name.split(".")):
            continue
        owner, _, rest = name.partition(".base_layer.")
        if not rest:
            yield name, parameter.detach()
        elif rest == "weight":
            layer = adapted[owner]
            change = sum(layer.get_delta_weight(adapter).detach() for adapter in layer.active_adapters)
            yield f"{owner}.weight", (parameter.detach() + change).to(parameter.dtype)
        else:
            yield f"{owner}.{rest}", parameter.detach()
