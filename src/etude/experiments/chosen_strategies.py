"""Whether a model learns which strategy to try first, starting from one that can use several and prefers none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from etude.errors import InputError
from etude.evals.measures import AtBudget, First
from etude.experiments.imitate_first import imitate_first

MEASURES = (
    *("first", "first_greedy", "best_fixed", "best_by_kind", "oracle_strategy", "tag_entropy", "tag_accuracy", "tag_right", "choice_at_start"),
    *("vote", "vote_tokens", "retry_oracle_stop", "retry_tokens", "length"),
)


def chosen_strategies(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    Each before (`_first`) and at the end: what `etude.evals.strategies` measures of first attempts, the choice of strategy and the vote over strategies; tries in turn with an
    oracle's stop (`retry_oracle_stop`), and their tokens. `generated`, `trained`: tokens of the run. What has no value is left out.
    """
    record = imitate_first(seed, settings, budget)
    found = {"generated": float(record.ledger.generated_tokens), "trained": float(record.ledger.trained_tokens)}
    for name in MEASURES:
        for at, measure in {f"{name}_first": First(f"eval/{name}"), name: AtBudget(f"eval/{name}")}.items():
            with suppress(InputError):
                found[at] = measure(record)
    return {name: value for name, value in found.items() if isfinite(value)}
