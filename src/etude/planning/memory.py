"""Memory by arithmetic: what a rank of the learner and of a sampler hold, and from how many ranks on it fits.

The learner's state is cut into equal parts over its ranks (fully sharded); a sampler's weights and heads over the ranks of one replica. Sizes are bytes, GB are 10^9.
What is left out (the library's own buffers, fragmentation) is what `--memory-share` keeps free.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.planning.shapes import Shape

BYTES = {"float32": 4, "bfloat16": 2}
"""Bytes of a number of each format."""


@dataclass(frozen=True)
class Part:
    """One entry of a memory account: bytes on one rank, and how they come about."""

    name: str
    bytes: float
    how: str


@dataclass(frozen=True)
class LearnerMemory:
    """One rank of the learner. resident: what stays between updates; working: what an update needs besides."""

    ranks: int
    resident: tuple[Part, ...]
    working: tuple[Part, ...]

    @property
    def bytes(self) -> float:
        return sum(part.bytes for part in (*self.resident, *self.working))

    @property
    def resident_bytes(self) -> float:
        return sum(part.bytes for part in self.resident)


@dataclass(frozen=True)
class SamplerMemory:
    """One rank of a sampler replica. sequence: bytes of one sequence at full length; fits: how many of them there is room for beside the weights."""

    ranks: int
    weights: Part
    token: Part
    sequence: float
    fits: int


@dataclass(frozen=True)
class Footprint:
    """How a learner is run: what decides its memory."""

    dtype: str = "bfloat16"
    lora_rank: int = 0
    micro_batch_tokens: int = 4096
    gradient_checkpointing: bool = False
    reference: bool = False


def learner_memory(shape: Shape, footprint: Footprint, ranks: int) -> LearnerMemory:
    """What each of `ranks` learner ranks holds.

    Weights, and a frozen copy of them where one is kept, in `dtype`; of each trained parameter AdamW's two means in float32, a float32 copy of weights that have less
    than that, and during an update a float32 gradient; the activations of a micro-batch, logits in float32 and their gradient. With several ranks one layer, and the
    next one, are gathered whole.
    """
    size, parameters = BYTES[footprint.dtype], shape.parameters
    adapter = shape.adapter_parameters(footprint.lora_rank) if footprint.lora_rank else 0
    trained = adapter or parameters
    what = f"{trained:,} adapter parameters" if adapter else f"{parameters:,} parameters"
    over = f" / {ranks} ranks" if ranks > 1 else ""
    held = parameters + adapter
    resident = [Part("weights", held * size / ranks, f"{held:,} parameters x {size} bytes ({footprint.dtype}){over}")]
    if footprint.reference and not adapter:
        resident.append(Part("reference policy", parameters * size / ranks, f"{parameters:,} parameters x {size} bytes ({footprint.dtype}){over}"))
    state, words = (12, "8 bytes for AdamW's means + 4 for a float32 copy") if size < 4 else (8, "8 bytes for AdamW's means")
    resident.append(Part("optimizer state", trained * state / ranks, f"{what} x ({words}){over}"))
    working = [Part("gradients", trained * 4 / ranks, f"{what} x 4 bytes (float32){over}")]
    if ranks > 1:
        gathered = 2 * max(shape.layer_parameters, shape.embedding)
        working.append(Part("gathered layers", gathered * size, f"2 x {gathered // 2:,} parameters x {size} bytes: a layer or the embedding, and the next one"))
    return LearnerMemory(ranks, tuple(resident), (*working, *_activations(shape, footprint, size)))


def _activations(shape: Shape, footprint: Footprint, size: int) -> tuple[Part, Part]:
    tokens, (own, wide) = footprint.micro_batch_tokens, shape.layer_activations(size)
    layer, text = own * size + wide * 4, f"({own:,} x {size} + {wide:,} x 4 bytes)"
    if footprint.gradient_checkpointing:
        kept = shape.layers * shape.hidden * size + layer
        how = f"{tokens:,} tokens x ({shape.layers} layers' inputs x {shape.hidden:,} x {size} bytes + {text} of the layer that is computed again)"
    else:
        kept, how = shape.layers * layer, f"{tokens:,} tokens x {shape.layers} layers x {text}"
    logits = f"{tokens:,} tokens x {shape.vocabulary:,} words x 4 bytes x 2 (logits and their gradient)"
    return Part("activations", tokens * kept, how), Part("logits", tokens * shape.vocabulary * 8, logits)


def sampler_memory(shape: Shape, dtype: str, ranks: int, *, room: float, context: int, shared_weights: bool = False) -> SamplerMemory:
    """What each rank of a sampler replica holds, and how many sequences of `context` tokens fit into `room` bytes beside the weights.

    shared_weights: the learner's own tensors are sampled from, as in one process, so that they take no room here.
    """
    size = BYTES[dtype]
    over = f" / {ranks} ranks" if ranks > 1 else ""
    weights = (
        Part("weights", 0.0, "the learner's own")
        if shared_weights
        else Part("weights", shape.parameters * size / ranks, f"{shape.parameters:,} parameters x {size} bytes ({dtype}){over}")
    )
    heads = -(-shape.kv_heads // ranks)
    token = Part("keys and values of a token", shape.kv_elements(ranks) * size, f"2 x {shape.layers} layers x {heads} heads x {shape.head_dim} x {size} bytes")
    sequence = token.bytes * context
    return SamplerMemory(ranks, weights, token, sequence, max(0, int((room - weights.bytes) // sequence)))


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`."""
    return [1 << i for i in range(most.bit_length()) if 1 << i <= most]
