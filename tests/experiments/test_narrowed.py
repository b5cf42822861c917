"""The experiment on narrowed starts: what it reads off a run."""

from __future__ import annotations

from typing import Any

import pytest

from etude.evals.measures import Record
from etude.experiments import narrowed as experiment
from etude.ledger import Budget


def test_what_is_read_off_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(step: int, **metrics: float) -> dict[str, Any]:
        return {"step": step, **metrics, "ledger": {"steps": step}}

    rows = [
        row(0, **{"eval/pass@1": 0.4, "eval/several_ways": 0.1}),
        row(1, **{"balance/temperature": 1.6, "balance/kept": 6.0, "explore/right_ways": 6.5}),
        row(2),
        row(3, **{"balance/temperature": 1.3, "balance/kept": 7.0, "explore/right_ways": 7.5}),
        row(4, **{"eval/pass@1": 0.3, "eval/several_ways": 0.3}),
    ]
    monkeypatch.setattr(experiment, "imitate_first", lambda seed, settings, budget: Record(rows, Budget.parse(budget)))
    found = experiment.narrowed(0, {}, "4-steps")
    wanted = {"pass@1_first": 0.4, "pass@1": 0.3, "several_ways_first": 0.1, "several_ways": 0.3, "temperature": 1.45, "kept": 6.5, "found": 7.0}
    assert found == pytest.approx(wanted)
