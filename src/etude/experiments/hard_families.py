"""Whether families of questions that were never solved come to be solved, starting from a model that can read examples.

The embedded model cannot. So it first goes to the school of `keyed-shift`, where it learns to use right work that it was shown, and some keys; the others it can only guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.evals.measures import Area, AtBudget, Average, First
from etude.experiments.imitate_first import imitate_first

HARD = "keyed-shift:only=hard,held_out_tasks=128"
"""Held-out questions of hard families alone, measured besides the held-out split of all."""


def hard_families(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    `pass_rate`, `hard`: held-out pass@1 of all families and of the hard ones, before (`_first`), over the budget (`_area`) and at its end. `spread`: share of groups with
    different rewards, over the run. `seeded`: share of attempts that saw examples; `solved_when_seeded`: how many of them were right; `saved`: tasks a step that were
    solved only then; each 0 where nothing was seeded. All other settings are the run's.
    """
    record = imitate_first(seed, {**settings, "retention_tasks": [HARD]}, budget)
    found = {"spread": Average("signal/groups_with_spread")(record)}
    for name, metric in {"pass_rate": "eval/pass@1", "hard": "eval/retention"}.items():
        found |= {f"{name}_first": First(metric)(record), f"{name}_area": Area(metric)(record), name: AtBudget(metric)(record)}
    for name, metric in {"seeded": "rollout/seeded", "solved_when_seeded": "reward/solved_when_seeded", "saved": "signal/saved"}.items():
        found[name] = Average(metric)(record) if any(metric in row for row in record.rows) else 0.0
    return found
