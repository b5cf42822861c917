"""What `etude plan` can be told. Options that are None are taken from the runs under `--from`, or else have the default that their text says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from etude.config import AtLeastOne, Count, NonNegative, Share

Positive = Annotated[float, Gt(0)]


@dataclass
class WorkConfig:
    """What the run does."""

    model: str | None = None
    """Model: `tiny`, a size such as `7B`, or a Hugging Face folder."""
    tokens: str | None = None
    """Length of the run in trained tokens: `2B`, `400M`, `50k`."""
    steps: Count = 0
    """Length of the run in updates, instead of `tokens` (0: not said)."""
    tasks_per_step: AtLeastOne | None = None
    """Tasks (groups) of an update. Default: 16."""
    group_size: AtLeastOne | None = None
    """Attempts at each task. Default: 16."""
    prompt_length: NonNegative | None = None
    """Tokens of a prompt. Default: 256."""
    length: Positive | None = None
    """Tokens of an attempt, the median where `length_spread` is not 0."""
    length_spread: NonNegative = 0.0
    """Standard deviation of the logarithm of lengths, for a log-normal distribution (0: all alike)."""
    between_tasks: Share = 0.0
    """Share of that variance that all attempts at a task have in common."""
    max_length: AtLeastOne | None = None
    """Longest that an attempt may get; measured lengths are cut to it. Default: the longest that was measured, or `length` where all are alike."""
    turns: AtLeastOne | None = None
    """Turns of an episode, into which its tokens are divided. Default: 1."""


@dataclass
class ScheduleConfig:
    """Who waits for whom, and on how many GPUs."""

    mode: tuple[Literal["synchronous", "asynchronous", "partial"], ...] | None = None
    """Ways of scheduling, each simulated: `synchronous` waits for every attempt; `partial` goes on with unfinished ones after the update (APRIL); `asynchronous` never
    stops sampling. Default: synchronous."""
    max_staleness: Count | None = None
    """Updates between the weights that drew a token and those that are trained with it, at most. Default: 1 for asynchronous, no limit for partial."""
    over_provision: Annotated[float, Ge(1)] | None = None
    """Groups in flight with partial rollouts, as a multiple of those of an update. Default: 2."""
    gpus: AtLeastOne = 1
    """GPUs in all."""
    pools: Literal["colocated", "split"] = "colocated"
    """`colocated`: the same GPUs sample and learn in turn; `split`: some do the one, some the other."""
    sampler_gpus: AtLeastOne | None = None
    """GPUs that sample, of split pools. Default: so that both pools would take equally long if no slot were ever empty."""
    sampler_ranks: AtLeastOne | None = None
    """GPUs of one sampler replica. Default: the smallest power of two that holds the weights and one sequence of full length."""
    slots: AtLeastOne | None = None
    """Sequences that a sampler replica runs at once. Default: 256, or as many of full length as its memory holds."""


@dataclass
class MemoryConfig:
    """What a GPU has to hold."""

    gpu_memory: Positive = 80.0
    """Memory of a GPU in GB (10^9 bytes)."""
    memory_share: Annotated[float, Gt(0), Le(1)] = 0.9
    """Share of it that may be used; the rest is for what is not counted."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of the weights. Default: bfloat16."""
    lora_rank: Count | None = None
    """Train a LoRA adapter of this rank on all linear layers (0: all weights). Default: 0."""
    micro_batch_tokens: AtLeastOne = 4096
    """Tokens of a forward and backward pass on one rank."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    reference: bool = False
    """Keep a frozen copy of the starting weights, for a divergence from them."""


@dataclass
class RateConfig:
    """What things cost. What is stated here goes before what was measured."""

    decode_rate: Positive | None = None
    """Tokens a second that one sampler replica generates with all its slots busy."""
    decode_fixed: Share | None = None
    """Share of the time of such a step that it would take with one sequence as well. Default: what a step reads of weights, over weights and all slots' keys and values."""
    prefill_rate: Positive | None = None
    """Tokens of prompts and resumed sequences that one replica reads a second. Default: they cost nothing."""
    environment_seconds: NonNegative | None = None
    """Seconds that the environment, or the judge, takes after each turn. Default: 0."""
    environment: Literal["beside", "inside"] | None = None
    """While it does, other sequences go on (`beside`), or the sampler waits (`inside`, as the embedded engine does). Default: beside."""
    train_rate: Positive | None = None
    """Tokens a second that one GPU of the learner trains on, prompts counted once a group."""
    active_share: Annotated[float, Gt(0), Le(1)] | None = None
    """Share of groups whose attempts differ in reward: the learner leaves the others out where the loss has no divergence and no entropy in it. Default: that of the
    runs for groups of this size, else 1."""
    update_seconds: NonNegative | None = None
    """Seconds of an update besides its tokens. Default: 0."""
    sync_seconds: NonNegative | None = None
    """Seconds that samplers stand still for new weights. Default: 0."""


@dataclass
class SimulationConfig:
    """The simulation."""

    updates: AtLeastOne = 20
    """Updates that are simulated and counted."""
    warm_up: Count | None = None
    """Updates before those. Default: 5, and with asynchronous sampling `max_staleness` more."""
    seed: int = 0
    """Seed of the lengths that are drawn."""


@dataclass
class PlanConfig:
    """One plan."""

    work: WorkConfig = field(default_factory=WorkConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    rates: RateConfig = field(default_factory=RateConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
