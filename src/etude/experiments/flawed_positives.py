"""Whether failed tool calls inside right answers go away under training, starting from a model that makes them.

The embedded model calls its calculator cleanly or not at all. So it is first shown conversations in which some calls are made in a form that the calculator cannot read,
and then properly (`calculator:sloppy=...`): right answers by flawed ways. From there the arms train, each on the same number of generated tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.config import NO_STEP_LIMIT
from etude.errors import InputError
from etude.evals.measures import AtBudget, Average, First, Record
from etude.ledger import Budget

WARM_UP: dict[str, Any] = {"steps": 24, "tasks_per_step": 64, "lr": 1e-3}
"""The imitation that every arm starts with."""
OWN = ("method", "model", "tasks", *(f"warm_{name}" for name in WARM_UP))


def flawed_positives(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of that task set's conversations.

    `error_rate_first`, `error_rate`: share of the tool calls in right attempts that failed, in the first step and over the last quarter of the budget.
    `length_first`, `length`: tokens of a right attempt, likewise. `pass_rate_first`, `pass_rate`: held-out pass@1 before and at the end. `tool_free`: share of right
    attempts without a call over the last quarter. All other settings are the run's.
    """
    import etude
    from etude.run import Run

    missing = [name for name in ("method", "tasks") if name not in settings]
    if missing:
        raise InputError(f"flawed_positives has no setting {missing[0]!r}; expected a method and a task set with conversations to imitate")
    shared = {"seed": seed, "tasks": settings["tasks"], "quiet": True, "eval_kl": False, "keep_last": 1, "save_trajectories": 0, "threads": 1}
    warm = {name: settings.get(f"warm_{name}", value) for name, value in WARM_UP.items()}
    with tempfile.TemporaryDirectory() as folder:
        start, trained = Path(folder) / "start", Path(folder) / "run"
        etude.train("sft", out=start, model=settings.get("model", "tiny"), export="last", evaluate_every=0, eval_tasks=8, eval_samples=1, **warm, **shared)
        given = {name: value for name, value in settings.items() if name not in OWN}
        etude.train(settings["method"], out=trained, model=str(start / "model"), budget=budget, **{"steps": NO_STEP_LIMIT, **shared, **given})
        record = Record(Run.open(trained).metrics(), Budget.parse(budget), name=f"{settings['method']}, seed {seed}")
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
