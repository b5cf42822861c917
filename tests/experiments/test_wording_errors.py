"""The experiment on mistakes that belong to a wording, at its smallest."""

from __future__ import annotations

from etude.experiments.wording_errors import wording_errors

SMALL = {"warm_steps": 1, "warm_tasks_per_step": 8, "tasks_per_step": 2, "group_size": 4, "eval_tasks": 4, "eval_samples": 1, "evaluate_every": 0}


def test_it_warms_up_trains_and_measures() -> None:
    warm = {"warm_tasks": "two-views:both=1,slant=1,constant=0.07"}
    settings = {**SMALL, **warm, "method": "co-reward", "tasks": "two-views", "rewriter": "words", "lr": 1e-3, "probe": "never"}
    found = wording_errors(0, settings, "1-steps")
    assert {"accuracy_first", "accuracy", "original", "twin", "label_first", "label", "wrong_alike_first", "silent"} <= set(found)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["label"] == found["label_first"]
    assert found["accuracy"] == (found["original"] + found["twin"]) / 2
