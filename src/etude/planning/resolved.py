"""From what was said and measured to the numbers that a plan is computed from, each with where it is from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from etude.errors import InputError
from etude.planning.lengths import Lengths, share_with_spread
from etude.planning.measured import Measured
from etude.planning.memory import BYTES
from etude.planning.rates import LEARNING, SAMPLING, Fit, Rates, fitted
from etude.planning.settings import PlanConfig
from etude.planning.shapes import Shape
from etude.settings import flag, leaves

DEFAULTS: dict[str, Any] = {
    "tasks_per_step": 16,
    "group_size": 16,
    "prompt_length": 256.0,
    "turns": 1,
    "mode": ("synchronous",),
    "over_provision": 2.0,
    "dtype": "bfloat16",
    "lora_rank": 0,
    "environment": "beside",
}
"""Of options that may be measured, what they are where nobody says."""

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgbt]?)", re.IGNORECASE)
_SIZES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


@dataclass
class Choices:
    """Values of options by name: what was stated goes before what was measured, and that before defaults. origins: which of these it was."""

    config: PlanConfig
    measured: Measured
    origins: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stated = {name: leaf.value for name, leaf in leaves(self.config).items()}

    def get(self, name: str) -> Any:
        """The value of an option; None where there is none."""
        for value, origin in ((self._stated[name], "stated"), (self.measured.settings.get(name), "measured"), (DEFAULTS.get(name), "default")):
            if value is not None:
                self.origins[name] = origin
                return value
        return None

    def stated(self, name: str) -> Any:
        return self._stated[name]

    def source(self, name: str) -> str:
        """'stated', 'default', or the runs that it is from."""
        origin = self.origins.get(name, "stated")
        return self.measured.name if origin == "measured" else origin


def amount(text: str, name: str) -> float:
    """A count such as `2B`, `400M` or `50k`. Raises InputError for anything else."""
    match = _AMOUNT.fullmatch(text.strip())
    value = float(match[1]) * _SIZES[match[2].lower()] if match else 0.0
    if value <= 0:
        raise InputError(f"{flag(name)} is {text!r}; expected a number above 0, with k, M, B (or G) or T where wanted, as 2B or 400M")
    return value


def require(choices: Choices) -> None:
    """Refuse what lacks a model, lengths or rates, naming all flags that are missing at once."""
    measured = choices.measured
    missing = {
        "model": choices.get("model") is None,
        "length": not measured.lengths and choices.get("length") is None,
        "decode_rate": not measured.sampling and choices.stated("decode_rate") is None,
        "train_rate": not measured.learning and choices.stated("train_rate") is None,
    }
    names = [flag(name) for name, absent in missing.items() if absent]
    if names:
        where = f"{measured.name} does not have them" if measured.name else "--from RUN takes them from a run that is finished"
        raise InputError(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing; state {'it' if len(names) == 1 else 'them'}, or measure: {where}")
    for one, other in (("max_staleness", ("asynchronous", "partial")), ("over_provision", ("partial",))):
        if choices.stated(one) is not None and not set(other) & set(choices.get("mode")):
            raise InputError(
                f"{flag(one)} is given, and plays no part in --mode {' '.join(choices.get('mode'))}; expected --mode {' or '.join(other)}, or leave it out"
            )


def lengths_of(choices: Choices) -> tuple[Lengths, str]:
    """The distribution of lengths, and a sentence on it."""
    stated, limit = choices.stated("length"), choices.stated("max_length")
    measured = choices.measured.lengths
    if stated is None and measured:
        longest = max(max(group) for group in measured)
        lengths = Lengths(min(longest, limit or longest), measured=measured)
        kind = "by task and within it" if lengths.by_task else "one by one, tasks not told apart"
        return lengths, f"drawn from {sum(map(len, measured)):,} attempts of {choices.measured.name}, {kind}" + (f"; cut to {limit:,}" if limit else "")
    median = float(choices.get("length"))
    spread = choices.stated("length_spread")
    if spread and limit is None:
        raise InputError(f"--length-spread {spread:g} makes some attempts very long; expected --max-length besides, the longest that one may get")
    longest = limit or max(1, round(median))
    if limit is not None and median > limit:
        raise InputError(f"--length is {median:g}, more than --max-length {limit}; expected at most that")
    share = choices.stated("between_tasks")
    lengths = Lengths(longest, median, spread, share)
    if not spread:
        return lengths, f"all alike ({choices.source('length')})"
    return lengths, f"log-normal, median {median:g}, spread {spread:g}, {100 * share:.0f} % of it between tasks, at most {longest:,} (stated)"


def rates_of(choices: Choices, shape: Shape, *, slots: int, context: float) -> Rates:
    """Seconds of everything. context: tokens that a running sequence has on average, for the default of `decode_fixed`."""
    measured = choices.measured
    sources: dict[str, str] = {}
    alike = False
    found: dict[str, float] = dict.fromkeys((*SAMPLING, *LEARNING), 0.0)
    for names, observations in ((SAMPLING, measured.sampling), (LEARNING, measured.learning)):
        if observations:
            fit = fitted(observations, [name for name in names if any(o.counts.get(name) for o in observations)])
            found |= fit.seconds
            sources |= dict.fromkeys(fit.seconds, _fit_text(fit, measured.name))
            alike = alike or fit.alike
    if (rate := choices.stated("decode_rate")) is not None:
        step = slots / rate
        share, how = _fixed_share(choices, shape, slots, context)
        found |= {"decode_step": share * step, "decode_token": (1 - share) * step / slots}
        whole = f"{slots} slots / {rate:,.0f} tokens/s = {1000 * step:.3g} ms a step with all of them busy"
        sources |= {"decode_step": f"{100 * share:.0f} % of it: {how}", "decode_token": f"the rest, over {slots} slots. {whole}"}
    for name, stated in (("prefill_token", "prefill_rate"), ("train_token", "train_rate")):
        if (rate := choices.stated(stated)) is not None:
            found[name], sources[name] = 1 / rate, f"1 / {rate:,.0f} tokens/s (stated)"
    for name, stated in (("environment", "environment_seconds"), ("update", "update_seconds")):
        if (seconds := choices.stated(stated)) is not None:
            found[name], sources[name] = seconds, "stated"
    # The embedded engine reads in a pass of its own; a rate that is stated is one of a server, which reads along with a decode step.
    reading = found["decode_step"] if choices.stated("decode_rate") is None else 0.0
    sources["reading"] = "the fixed part of a decode step, as in the embedded engine" if reading else "goes along with a decode step"
    active, sources["active"] = _active(choices)
    sync = choices.stated("sync_seconds")
    sources["sync"] = "stated" if sync is not None else "not stated, so 0"
    texts = {name: sources.get(name, "not stated, so 0") for name in (*found, "sync", "reading", "active")}
    return Rates(**found, sync=sync or 0.0, reading=reading, active=active, sources=texts, alike=alike)


def _active(choices: Choices) -> tuple[float, str]:
    """Share of groups that the learner looks at, and how it is known."""
    measured, group = choices.measured, choices.get("group_size")
    if (share := choices.stated("active_share")) is not None:
        return share, "stated"
    if sum(map(len, measured.rewards)) >= 2 * len(measured.rewards) > 0:
        return share_with_spread(
            measured.rewards, group
        ), f"groups of {group} out of {len(measured.rewards)} that {measured.name} recorded, whose rewards differ"
    if measured.active < 1:
        return measured.active, f"groups of {measured.name} whose rewards differ"
    return 1.0, "not stated, so all"


def _fixed_share(choices: Choices, shape: Shape, slots: int, context: float) -> tuple[float, str]:
    if (share := choices.stated("decode_fixed")) is not None:
        return share, "stated"
    size = BYTES[choices.get("dtype")]
    weights, cache = shape.parameters * size, slots * context * shape.kv_elements() * size
    how = f"{weights / 1e9:.3g} GB of weights / ({weights / 1e9:.3g} + {cache / 1e9:.3g} GB of keys and values of {slots} sequences of {context:,.0f} tokens)"
    return weights / (weights + cache), how


def _fit_text(fit: Fit, name: str) -> str:
    how = f"fitted to {fit.observations} measurements of {name}, mean error {100 * fit.error:.0f} %"
    return how + "; these are alike, so that its share is assumed" if fit.alike else how
