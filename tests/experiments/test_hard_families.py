"""The experiment on families that were never solved, at its smallest."""

from __future__ import annotations

from etude.experiments.hard_families import hard_families

SMALL = {"warm_steps": 1, "warm_tasks_per_step": 8, "tasks_per_step": 2, "group_size": 4, "eval_tasks": 4, "eval_samples": 1, "evaluate_every": 0}


def test_it_warms_up_trains_and_measures() -> None:
    found = hard_families(0, {**SMALL, "warm_tasks": "keyed-shift:lessons=1", "method": "xrpo", "tasks": "keyed-shift"}, "1-steps")
    assert {"pass_rate_first", "pass_rate", "pass_rate_area", "hard_first", "hard", "hard_area", "spread", "seeded", "saved"} <= set(found)
    assert all(0 <= value <= 1 for name, value in found.items() if name != "saved")
