"""Whether failed tool calls inside right answers go away under training, starting from a model that makes them.

The embedded model calls its calculator cleanly or not at all. So it is first shown conversations in which some calls are made in a form that the calculator cannot read,
and then properly (`calculator:sloppy=...`): right answers by flawed ways. From there the arms train, each on the same number of generated tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.evals.measures import AtBudget, Average, First
from etude.experiments.imitate_first import imitate_first


def flawed_positives(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of that task set's conversations.

    `error_rate_first`, `error_rate`: share of the tool calls in right attempts that failed, in the first step and over the last quarter of the budget.
    `length_first`, `length`: tokens of a right attempt, likewise. `pass_rate_first`, `pass_rate`: held-out pass@1 before and at the end. `tool_free`: share of right
    attempts without a call over the last quarter. All other settings are the run's.
    """
    record = imitate_first(seed, settings, budget)
    late = 0.25
    return {
        "error_rate_first": First("tool/error_rate_right")(record),
        "error_rate": Average("tool/error_rate_right", last=late)(record),
        "length_first": First("tool/length_right")(record),
        "length": Average("tool/length_right", last=late)(record),
        "tool_free": Average("tool/free_right", last=late)(record),
        "pass_rate_first": First("eval/pass@1")(record),
        "pass_rate": AtBudget("eval/pass@1")(record),
    }
