"""What has room where: the smallest numbers of ranks that hold a learner and a sampler, and messages for what has none."""

from __future__ import annotations

from dataclasses import dataclass, field

from etude.errors import InputError
from etude.planning.memory import Footprint, LearnerMemory, SamplerMemory, learner_memory, powers_of_two, sampler_memory
from etude.planning.shapes import Shape

MOST_SAMPLER_RANKS = 8
"""Most GPUs of one sampler replica that are tried: those of one machine."""
MOST_LEARNER_RANKS = 4096


@dataclass
class Room:
    """What fits where: a model, how it is trained, the bytes of a GPU that may be used, and the tokens of the longest sequence."""

    shape: Shape
    footprint: Footprint
    usable: float
    context: int
    notes: list[str] = field(default_factory=list)

    def learner(self, ranks: int, *, beside: float = 0.0) -> tuple[LearnerMemory, int]:
        """The learner on so many ranks, and the smallest number of ranks that it fits on. Raises InputError when it does not fit.

        beside: bytes on each GPU that are a sampler's weights.
        """
        found = learner_memory(self.shape, self.footprint, ranks)
        tried = sorted({*powers_of_two(MOST_LEARNER_RANKS), ranks})
        smallest = next((r for r in tried if learner_memory(self.shape, self.footprint, r).bytes + beside <= self.usable), None)
        if found.bytes + beside <= self.usable and smallest is not None:
            return found, smallest
        parts = ", ".join(f"{part.name} {part.bytes / 1e9:.1f}" for part in (*found.resident, *found.working))
        parts += f", a sampler's weights {beside / 1e9:.1f}" if beside else ""
        wanted = f"it fits on {smallest} or more" if smallest else "more GPUs alone do not help"
        needs, usable = (found.bytes + beside) / 1e9, self.usable / 1e9
        raise InputError(
            f"a learner of {self.shape.name} on {gpus_text(ranks)} needs {needs:.1f} GB on each, of {usable:.1f} that may be used ({parts}); {wanted}. "
            "Expected more --gpus, fewer --micro-batch-tokens, --gradient-checkpointing, or --lora-rank"
        )

    def sampler(self, ranks: int | None, most: int, room: float, *, shared: bool) -> SamplerMemory:
        """A sampler replica on so many ranks, or on as few as it fits on. Raises InputError when not one sequence has room."""
        tried = [ranks] if ranks else powers_of_two(min(most, MOST_SAMPLER_RANKS))
        replicas = [sampler_memory(self.shape, self.footprint.dtype, count, room=room, context=self.context, shared_weights=shared) for count in tried]
        if (found := next((replica for replica in replicas if replica.fits), None)) is not None:
            return found
        found = replicas[-1]
        weights, sequence = found.weights.bytes / 1e9, found.sequence / 1e9
        raise InputError(
            f"a sampler of {self.shape.name} on {gpus_text(tried[-1])} has no room for one sequence of {self.context:,} tokens: {weights:.1f} GB of weights and "
            f"{sequence:.2f} GB of keys and values on each, of {room / 1e9:.1f} GB that are left. Expected more --sampler-ranks, a shorter --max-length"
            + (", or --pools split, which leaves samplers a whole GPU" if room < self.usable else "")
        )


def gpus_text(count: int) -> str:
    """A number of GPUs in words."""
    return "1 GPU" if count == 1 else f"{count} GPUs"
