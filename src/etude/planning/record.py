"""A plan as plain values, for a file."""

from __future__ import annotations

from typing import Any

from etude.planning.plan import Outcome, Plan
from etude.run import plain

NUMBERS = ("seconds", "tokens_per_update", "tokens_per_second", "sampling", "learning", "syncing", "slots_empty", "decode_steps", "stale", "lag", "most_lag")


def as_plain(plan: Plan) -> dict[str, Any]:
    """The plan's numbers as plain JSON values; those of each mode under its name."""
    return {
        "model": {"name": plan.shape.name, "parameters": plan.shape.parameters},
        "settings": plain(plan.choices.config),
        "sources": plan.choices.measured.name,
        "pools": plain(plan.pools) | {"samplers": plan.pools.samplers},
        "memory": {
            "usable_bytes": plan.usable,
            "learner_bytes": plan.learner.bytes,
            "learner_fits_from": plan.learner_from,
            "sampler_weight_bytes": plan.sampler.weights.bytes,
            "sequence_bytes": plan.sampler.sequence,
            "sequences_that_fit": plan.sampler.fits,
        },
        "rates": plain(plan.rates),
        "modes": {outcome.mode: _outcome(outcome, plan) for outcome in plan.outcomes},
        "notes": list(plan.notes),
    }


def _outcome(outcome: Outcome, plan: Plan) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in NUMBERS} | {"run_seconds": plan.run_seconds(outcome)}
