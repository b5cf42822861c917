"""What programs that are checked and corrected gain over programs alone, from a start that was taught to write programs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from etude.errors import InputError
from etude.evals.measures import Final, First, Spent
from etude.experiments.imitate_first import imitate_first

SHOWN = {
    "accuracy": "pass@1",
    "first_programs": "correct@1",
    "votes": "maj@4",
    "go_on_recall": "go_on_recall",
    "false_alarms": "false_alarms",
}
"""Measures of the end, and the held-out metrics that they are."""


def checked_programs(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a CoSC run of two phases or more on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    It has to evaluate at the end of a phase. `accuracy`, `votes`: held-out pass@1 and the vote of four at the end. `first_programs`: the accuracy that the first programs
    alone would have; `go_on_recall` and `false_alarms`: the share of wrong and of right answers after which the model goes on. `seed_...`: the same at the end of the first
    phase. `first_right`, `kept`: of the attempts that the second phase made, the share whose first program is right, and the share that is imitated; `several`: of these,
    those that took several rounds. `tokens`, `trained`: generated tokens, and tokens trained on. What has no value is left out.
    """
    record = imitate_first(seed, settings, budget)
    steps = int(settings["steps_per_round"])
    found: dict[str, float] = {"tokens": Spent("generated_tokens")(record), "trained": Spent("trained_tokens")(record)}
    seeded = next((row for row in record.rows if row["step"] == steps and "eval/pass@1" in row), {})
    for name, metric in SHOWN.items():
        with suppress(InputError):
            found[name] = Final(f"eval/{metric}")(record)
        if isinstance(value := seeded.get(f"eval/{metric}"), float):
            found[f"seed_{name}"] = value
    for name, metric in {"first_right": "attempts/first_right", "kept": "self/kept", "several": "self/several"}.items():
        with suppress(InputError):
            found[name] = First(metric)(record)
    return {name: value for name, value in found.items() if isfinite(value)}
