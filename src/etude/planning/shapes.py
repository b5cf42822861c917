"""A model's shape, from which its parameters, its keys and values and its activations are counted.

Decoders of the Llama kind: an embedding, layers of attention with grouped heads and of a gated unit, norms, an output head, which may be the embedding. A folder's
`config.json` says which; a size such as 7B stands for a published model of that size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError, nearest


@dataclass(frozen=True)
class Shape:
    """What counts: widths, layers, heads. `qkv_bias` adds a bias to queries, keys and values (Qwen2), `head_norms` a norm a head to queries and keys (Qwen3)."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False
    head_norms: bool = False
    context: int = 0
    """Positions that the model was given (0: not known)."""

    @property
    def linear_layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a layer's matrices: queries, keys, values, output, gate, up, down."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            (self.hidden, query),
            (self.hidden, key),
            (self.hidden, key),
            (query, self.hidden),
            (self.hidden, self.intermediate),
            (self.hidden, self.intermediate),
            (self.intermediate, self.hidden),
        ]

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer."""
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.head_norms else 0)
        return sum(a * b for a, b in self.linear_layers) + biases + norms

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; the output head has as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.layer_parameters + self.embedding * (1 if self.tied else 2) + self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of a LoRA adapter of this rank on every matrix of every layer: rank x (inputs + outputs) each."""
        return self.layers * sum(rank * (a + b) for a, b in self.linear_layers)

    def kv_elements(self, ranks: int = 1) -> int:
        """Numbers that one token adds to the cache of keys and values, on each of some ranks that share the heads out."""
        return 2 * self.layers * -(-self.kv_heads // ranks) * self.head_dim

    def layer_activations(self, size: int) -> tuple[int, int]:
        """(numbers of `size` bytes, numbers of float32) that one token leaves in one layer for the backward pass.

        Inputs and outputs of both norms (4 x hidden), queries and what attention gave, keys and values, and of the gated unit gate, up, the gate's activation and the
        product; in float32 what the norms made of their inputs (2 x hidden) and a number for each norm and head. `size` 4 or 2: with 4 all of it is float32.
        """
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return 4 * self.hidden + 2 * query + 2 * key + 4 * self.intermediate, 2 * self.hidden + self.heads + 2


def _qwen2(name: str, layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int, *, vocabulary: int = 151_936, tied: bool = False) -> Shape:
    return Shape(name, layers, hidden, heads, kv_heads, hidden // heads, intermediate, vocabulary, tied, qkv_bias=True, context=32_768)


def _llama3(name: str, layers: int, hidden: int, heads: int, intermediate: int, *, tied: bool = False) -> Shape:
    return Shape(name, layers, hidden, heads, 8, hidden // heads, intermediate, 128_256, tied, context=131_072)


SIZES = {
    "0.5B": _qwen2("Qwen2.5-0.5B", 24, 896, 14, 2, 4_864, tied=True),
    "1B": _llama3("Llama-3.2-1B", 16, 2_048, 32, 8_192, tied=True),
    "1.5B": _qwen2("Qwen2.5-1.5B", 28, 1_536, 12, 2, 8_960, tied=True),
    "3B": _qwen2("Qwen2.5-3B", 36, 2_048, 16, 2, 11_008, tied=True),
    "7B": _qwen2("Qwen2.5-7B", 28, 3_584, 28, 4, 18_944, vocabulary=152_064),
    "8B": _llama3("Llama-3.1-8B", 32, 4_096, 32, 14_336),
    "14B": _qwen2("Qwen2.5-14B", 48, 5_120, 40, 8, 13_824, vocabulary=152_064),
    "32B": _qwen2("Qwen2.5-32B", 64, 5_120, 40, 8, 27_648, vocabulary=152_064),
    "70B": _llama3("Llama-3.1-70B", 80, 8_192, 64, 28_672),
    "72B": _qwen2("Qwen2.5-72B", 80, 8_192, 64, 8, 29_568, vocabulary=152_064),
    "smollm2": Shape("SmolLM2-135M", 30, 576, 9, 3, 64, 1_536, 49_152, tied=True, context=8_192),
}
"""Published models that stand for their sizes."""

TINY = Path(__file__).parent.parent / "assets" / "tiny"
KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""`model_type` of configurations that are counted here."""


def shape_of(model: str) -> Shape:
    """The shape of `tiny`, of a size such as 7B, or of the Hugging Face folder (or `config.json`) at a path. Raises InputError for anything else."""
    if model == "tiny":
        return _from_folder(TINY, "tiny")
    by_size = {name.lower(): shape for name, shape in SIZES.items()}
    if model.lower() in by_size:
        return by_size[model.lower()]
    path = Path(model)
    if path.exists():
        return _from_folder(path, path.resolve().name)
    raise InputError(
        f"--model is {model!r}, which is no known size and no folder here.{nearest(model, SIZES)} "
        f"Expected one of {', '.join(SIZES)}, tiny, or a Hugging Face folder with a config.json"
    )


def _from_folder(path: Path, name: str) -> Shape:
    file = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text())
    except OSError as error:
        raise InputError(f"--model {path}: {file} cannot be read: {error.strerror}; expected a Hugging Face folder") from error
    except ValueError as error:
        raise InputError(f"--model {path}: {file} is no JSON; expected the config.json of a Hugging Face model") from error
    if not isinstance(values, dict):
        raise InputError(f"--model {path}: {file} holds no mapping; expected the config.json of a Hugging Face model")
    return from_config(values, name)


def from_config(values: Mapping[str, Any], name: str) -> Shape:
    """The shape that a `config.json` describes. Raises InputError for kinds of model that are not counted here, and for missing or senseless numbers."""
    kind = values.get("model_type")
    if kind not in KINDS:
        raise InputError(
            f"{name} is a model of type {kind!r}, whose parameters are not counted here; expected one of {', '.join(KINDS)}, or a size: {', '.join(SIZES)}"
        )
    missing = [
        key
        for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
        if not isinstance(values.get(key), int) or values[key] < 1
    ]
    if missing:
        raise InputError(f"the config.json of {name} has no usable {', '.join(missing)}; expected whole numbers above 0")
    heads, hidden = values["num_attention_heads"], values["hidden_size"]
    return Shape(
        name,
        values["num_hidden_layers"],
        hidden,
        heads,
        values.get("num_key_value_heads") or heads,
        values.get("head_dim") or hidden // heads,
        values["intermediate_size"],
        values["vocab_size"],
        tied=bool(values.get("tie_word_embeddings", False)),
        qkv_bias=kind == "qwen2" or bool(values.get("attention_bias", False)),
        head_norms=kind == "qwen3",
        context=int(values.get("max_position_embeddings") or 0),
    )
