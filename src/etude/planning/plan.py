"""The plan: memory first, then rates and lengths, then each schedule simulated, and the arithmetic from one to the other as lines to read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.errors import InputError
from etude.planning.lengths import Lengths
from etude.planning.measured import combined, read_source
from etude.planning.memory import Footprint, LearnerMemory, SamplerMemory, learner_memory
from etude.planning.parts import Costs, Counts, Mode, Schedule
from etude.planning.rates import Rates
from etude.planning.resolved import Choices, amount, lengths_of, rates_of, require
from etude.planning.room import Room, gpus_text
from etude.planning.settings import PlanConfig
from etude.planning.shapes import Shape, shape_of
from etude.planning.simulation import Plant

DEFAULT_SLOTS = 256


@dataclass(frozen=True)
class Pools:
    """Who works on which GPUs."""

    kind: str
    gpus: int
    sampler_gpus: int
    learner_gpus: int
    sampler_ranks: int
    slots: int
    how: str = ""
    """How a split was chosen."""

    @property
    def samplers(self) -> int:
        return self.sampler_gpus // self.sampler_ranks


@dataclass(frozen=True)
class Outcome:
    """What one schedule came to, over the updates that were counted. Shares are of wall time but for `slots_empty`, which is of slots over decode steps."""

    mode: Mode
    schedule: Schedule
    costs: Costs
    updates: int
    tokens: int
    spent: Counts
    lags: dict[int, int]

    @property
    def seconds(self) -> float:
        """Of one update, from one to the next."""
        return self.spent.seconds / self.updates

    @property
    def tokens_per_update(self) -> float:
        return self.tokens / self.updates

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.spent.seconds

    @property
    def sampling(self) -> float:
        """Share of the time that samplers decode, read or (inside) wait for their environment."""
        inside = self.spent.environment if self.schedule.environment_inside else 0.0
        return (self.spent.decoding + self.spent.prefilling + inside) / self.schedule.samplers / self.spent.seconds

    @property
    def learning(self) -> float:
        return self.spent.learning / self.spent.seconds

    @property
    def syncing(self) -> float:
        return self.spent.syncing / self.spent.seconds

    @property
    def slots_empty(self) -> float:
        return 1 - self.spent.busy_slot_steps / self.spent.slot_steps if self.spent.slot_steps else 0.0

    @property
    def decode_steps(self) -> float:
        """Of one sampler, an update."""
        return self.spent.steps / self.schedule.samplers / self.updates

    @property
    def stale(self) -> float:
        """Share of the trained tokens that older weights drew."""
        return 1 - self.lags.get(0, 0) / self.tokens

    @property
    def lag(self) -> float:
        return sum(lag * count for lag, count in self.lags.items()) / self.tokens

    @property
    def most_lag(self) -> int:
        return max(self.lags)


@dataclass(frozen=True)
class Plan:
    """Everything that a plan says. usable: bytes of a GPU that may be used. notes: what a reader should know before believing the numbers."""

    choices: Choices
    shape: Shape
    pools: Pools
    learner: LearnerMemory
    learner_from: int
    sampler: SamplerMemory
    usable: float
    rates: Rates
    lengths: Lengths
    lengths_text: str
    outcomes: tuple[Outcome, ...]
    total_tokens: float | None
    total_updates: int
    notes: tuple[str, ...] = ()

    def run_seconds(self, outcome: Outcome) -> float | None:
        """Seconds of the whole run; None where its length was not said."""
        if self.total_tokens is not None:
            return self.total_tokens / outcome.tokens_per_second
        return self.total_updates * outcome.seconds if self.total_updates else None


def make_plan(config: PlanConfig, sources: Sequence[Path] = ()) -> Plan:
    """The plan for what was said, with rates, lengths and settings of finished runs where they are not said. Raises InputError for what cannot be planned."""
    choices = Choices(config, combined([read_source(source) for source in sources]))
    require(choices)
    tokens = amount(config.work.tokens, "tokens") if config.work.tokens else None
    if tokens and config.work.steps:
        raise InputError("--tokens and --steps both say how long the run is; expected one of them")
    shape = shape_of(choices.get("model"))
    lengths, lengths_text = lengths_of(choices)
    prompt, mean = round(choices.get("prompt_length")), lengths.mean()
    options = config.memory
    footprint = Footprint(choices.get("dtype"), choices.get("lora_rank"), options.micro_batch_tokens, options.gradient_checkpointing, options.reference)
    if shape.context and prompt + lengths.longest > shape.context:
        raise InputError(
            f"a prompt of {prompt:,} and an attempt of up to {lengths.longest:,} tokens are more than the {shape.context:,} that {shape.name} reads; "
            "expected a shorter --max-length or --prompt-length"
        )
    memory = Room(shape, footprint, 1e9 * options.gpu_memory * options.memory_share, prompt + lengths.longest)
    context = prompt + mean / 2
    pools, sampler, rates = _pools(choices, memory, mean=mean, prompt=prompt, context=context)
    learner, smallest = memory.learner(pools.learner_gpus, beside=0.0 if pools.kind == "split" else sampler.weights.bytes)
    outcomes = tuple(_outcome(mode, choices, pools, rates, lengths, prompt) for mode in dict.fromkeys(choices.get("mode")))
    notes = [*memory.notes, *_notes(choices, rates, pools)]
    return Plan(
        choices, shape, pools, learner, smallest, sampler, memory.usable, rates, lengths, lengths_text, outcomes, tokens, config.work.steps, tuple(notes)
    )


def _pools(choices: Choices, memory: Room, *, mean: float, prompt: int, context: float) -> tuple[Pools, SamplerMemory, Rates]:
    """Who works where, what a sampler holds there, and what that costs."""
    schedule = choices.config.schedule
    gpus, split = schedule.gpus, schedule.pools == "split"
    if split and gpus < 2:
        raise InputError("--pools split needs a GPU for each side; expected --gpus 2 or more, or --pools colocated")
    if not split:
        if "asynchronous" in choices.get("mode"):
            raise InputError("--mode asynchronous samples while it learns, which colocated pools cannot; expected --pools split")
        if schedule.sampler_gpus is not None:
            raise InputError("--sampler-gpus says which GPUs of split pools sample, and the pools are colocated; expected --pools split, or leave it out")
    resident = 0.0 if split else memory.learner(gpus)[0].resident_bytes
    most = schedule.sampler_gpus or (gpus - 1 if split else gpus)
    sampler = memory.sampler(schedule.sampler_ranks, most, memory.usable - resident, shared=not split and gpus == 1)
    slots = _slots(choices, memory, sampler, prompt + mean)
    rates = rates_of(choices, memory.shape, slots=slots, context=context)
    if not split:
        chosen, how = gpus, ""
    elif schedule.sampler_gpus is not None:
        chosen, how = schedule.sampler_gpus, "stated"
    else:
        chosen, how = _balanced(choices, memory, sampler, rates, slots, mean=mean, prompt=prompt)
    if chosen % sampler.ranks or chosen > gpus - split:
        raise InputError(
            f"{gpus_text(chosen)} cannot be shared out among samplers of {sampler.ranks} with {gpus} in all; "
            f"expected a multiple of --sampler-ranks that leaves {'the learner one' if split else 'none over'}"
        )
    return Pools(schedule.pools, gpus, chosen, gpus - chosen if split else gpus, sampler.ranks, slots, how), sampler, rates


def _slots(choices: Choices, memory: Room, sampler: SamplerMemory, mean_context: float) -> int:
    """Sequences at once: what was said, if they have room at their mean length; otherwise 256, if they have room at full length."""
    wanted = choices.get("slots")
    if wanted is None:
        choices.origins["slots"] = "default"
        return min(DEFAULT_SLOTS, sampler.fits)
    at_mean = int(sampler.fits * sampler.sequence // (sampler.token.bytes * mean_context))
    if wanted > at_mean:
        raise InputError(
            f"--slots is {wanted}, and a sampler on {gpus_text(sampler.ranks)} has room for {sampler.fits} sequences of full length ({memory.context:,} tokens), "
            f"or {at_mean} of mean length ({mean_context:,.0f}); expected fewer --slots or more --sampler-ranks"
        )
    if wanted > sampler.fits:
        memory.notes.append(
            f"{wanted} sequences of mean length have room in a sampler, but only {sampler.fits} of full length: a batch of long ones has to wait for room"
        )
    return wanted


def _balanced(choices: Choices, memory: Room, sampler: SamplerMemory, rates: Rates, slots: int, *, mean: float, prompt: int) -> tuple[int, str]:
    """The split whose slower side is fastest, if every slot were always busy."""
    gpus, groups = choices.config.schedule.gpus, choices.get("tasks_per_step")
    tokens = groups * choices.get("group_size") * mean
    full = slots / (rates.decode_step + rates.decode_token * slots)

    def sides(sampling: int) -> tuple[float, float]:
        return tokens / (sampling / sampler.ranks * full), rates.update + rates.train_token * rates.active * (tokens + prompt * groups) / (gpus - sampling)

    possible = [s for s in range(sampler.ranks, gpus, sampler.ranks) if learner_memory(memory.shape, memory.footprint, gpus - s).bytes <= memory.usable]
    if not possible:
        memory.learner(gpus - sampler.ranks)
    best = min(possible, key=lambda s: max(sides(s)))
    return best, "with no slot ever empty {:.3g} s to sample an update's tokens and {:.3g} s to train on them".format(*sides(best))


def _outcome(mode: Mode, choices: Choices, pools: Pools, rates: Rates, lengths: Lengths, prompt: int) -> Outcome:
    simulation = choices.config.simulation
    limit = choices.get("max_staleness")
    staleness = {"asynchronous": 1 if limit is None else limit, "partial": limit or 0}.get(mode, 0)
    schedule = Schedule(
        mode,
        batch=choices.get("tasks_per_step"),
        over_provision=choices.get("over_provision") if mode == "partial" else 1.0,
        max_staleness=staleness,
        samplers=pools.samplers,
        slots=pools.slots,
        turns=choices.get("turns"),
        prompt=prompt,
        environment_inside=choices.get("environment") == "inside",
    )
    costs = Costs(
        rates.decode_step,
        rates.decode_token,
        rates.prefill_token,
        rates.environment,
        rates.update,
        rates.train_token * rates.active / pools.learner_gpus,
        rates.sync,
        rates.reading,
    )
    warm_up = simulation.warm_up if simulation.warm_up is not None else 5 + (staleness if mode == "asynchronous" else 0)
    generator, attempts = random.Random(simulation.seed), choices.get("group_size")
    plant = Plant(schedule, costs, lambda: lengths.draw(generator, attempts))
    plant.simulate(warm_up + simulation.updates)
    counted = plant.batches[warm_up:]
    lags: dict[int, int] = {}
    for batch in counted:
        for lag, count in batch.lags.items():
            lags[lag] = lags.get(lag, 0) + count
    spent = plant.marks[-1].since(plant.marks[warm_up - 1] if warm_up else Counts())
    return Outcome(mode, schedule, costs, simulation.updates, sum(batch.tokens for batch in counted), spent, lags)


def _notes(choices: Choices, rates: Rates, pools: Pools) -> list[str]:
    """What is left out of the account, or assumed."""
    free = {"prefill_token": "reading prompts (--prefill-rate)", "sync": "giving samplers new weights (--sync-seconds)"}
    left = [text for name, text in free.items() if not getattr(rates, name) and not (name == "sync" and pools.gpus == 1)]
    found = [f"taken to cost nothing, because no rate was given: {', '.join(left)}"] if left else []
    if rates.alike:
        found.append(
            "what was measured is too much alike to tell what a decode step or an update costs from what a token costs: half of sampling is taken to go by steps, all of "
            "an update by tokens. --from with runs of two sizes measures it"
        )
    if choices.measured.lengths and not Lengths(1, measured=choices.measured.lengths).by_task and choices.stated("length") is None:
        found.append("attempts at one task are drawn as if they had nothing in common: the runs recorded too few of each (--save-trajectories)")
    if pools.gpus > 1:
        found.append(
            f"rates are taken to grow with the GPUs: {pools.samplers} samplers as fast as one each, {pools.learner_gpus} learner ranks as fast as one each"
        )
    return found
