"""What the experiment on recovery reads from a run."""

from __future__ import annotations

from typing import Any

import pytest

import etude.experiments.recovery as experiment
from etude.evals.measures import Record
from etude.ledger import Budget


@pytest.mark.parametrize("judged", [True, False])
def test_it_reads_what_was_before_and_what_is_in_the_end(judged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [{"step": 0, "eval/pass@1": 0.3, "eval/recovered": 0.1, "eval/run_length": 2.0, "ledger": {"steps": 0}}]
    if judged:
        end = {"step": 2, "judge/precision": 0.9, "eval/pass@1": 0.5, "eval/recovered": 0.4, "eval/run_length": 1.2, "ledger": {"steps": 2}}
        rows += [{"step": 1, "judge/precision": 0.7, "ledger": {"steps": 1}}, end]
    monkeypatch.setattr(experiment, "imitate_first", lambda seed, settings, budget: Record(rows, Budget.parse(budget)))
    found = experiment.recovery(0, {}, "2-steps")
    assert (found["cut_precision"], found["success_first"], found["recovered_first"]) == (0.7 if judged else 0.0, 0.3, 0.1)
    assert (found["success"], found["recovered"], found["run_length"]) == ((0.5, 0.4, 1.2) if judged else (0.3, 0.1, 2.0))
    assert "revised_after" not in found
