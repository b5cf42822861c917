"""The experiment on families that were never solved: what it reads off a run. Runs that begin with imitation are tested with the other experiments."""

from __future__ import annotations

from typing import Any

import pytest

from etude.evals.measures import Record
from etude.experiments import hard_families as experiment
from etude.ledger import Budget


def row(step: int, tokens: int, **metrics: float) -> dict[str, Any]:
    return {"step": step, **metrics, "ledger": {"generated_tokens": tokens, "steps": step}}


def measured(monkeypatch: pytest.MonkeyPatch, **logged: float) -> dict[str, float]:
    """What the experiment makes of a run of two steps and two evaluations, whose settings it is also asked for."""
    rows = [
        row(0, 0, **{"eval/pass@1": 0.2, "eval/retention": 0.0}),
        row(1, 50, **{"signal/groups_with_spread": 0.5}, **logged),
        row(2, 100, **{"signal/groups_with_spread": 0.25}),
        row(2, 100, **{"eval/pass@1": 0.6, "eval/retention": 0.4}),
    ]

    def run(seed: int, settings: dict[str, Any], budget: str) -> Record:
        assert (seed, settings) == (3, {"method": "xrpo", "retention_tasks": [experiment.HARD]})
        return Record(rows, Budget.parse(budget))

    monkeypatch.setattr(experiment, "imitate_first", run)
    return experiment.hard_families(3, {"method": "xrpo"}, "100-tokens")


def test_what_is_read_off_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch)
    wanted = {"pass_rate_first": 0.2, "pass_rate_area": 0.4, "pass_rate": 0.6, "hard_first": 0.0, "hard_area": 0.2, "hard": 0.4, "spread": 0.375}
    assert found == pytest.approx({**wanted, "seeded": 0.0, "solved_when_seeded": 0.0, "saved": 0.0})
    seeded = measured(monkeypatch, **{"rollout/seeded": 0.1, "reward/solved_when_seeded": 0.7, "signal/saved": 2.0})
    assert seeded == pytest.approx({**wanted, "seeded": 0.1, "solved_when_seeded": 0.7, "saved": 2.0})
