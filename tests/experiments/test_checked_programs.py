"""What the experiment on checked programs reads from a run."""

from __future__ import annotations

from typing import Any

import pytest

import etude.experiments.checked_programs as experiment
from etude.evals.measures import Record
from etude.ledger import Budget


def test_it_reads_the_end_of_the_first_phase_and_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = {"steps": 4, "generated_tokens": 500, "trained_tokens": 900}
    rows: list[dict[str, Any]] = [
        {"step": 0, "eval/pass@1": 0.1, "eval/correct@1": 0.3, "ledger": {"steps": 0}},
        {"step": 2, "eval/pass@1": 0.6, "eval/correct@1": 0.5, "eval/go_on_recall": 0.4, "ledger": {"steps": 2}},
        {"step": 3, "attempts/first_right": 0.55, "self/kept": 0.5, "self/several": 0.2, "ledger": {"steps": 3}},
        {"step": 4, "eval/pass@1": 0.8, "eval/correct@1": 0.6, "eval/go_on_recall": 0.9, "eval/maj@4": 0.85, "ledger": ledger},
    ]
    monkeypatch.setattr(experiment, "imitate_first", lambda seed, settings, budget: Record(rows, Budget.parse(budget)))
    found = experiment.checked_programs(0, {"steps_per_round": 2}, "4-steps")
    assert (found["accuracy"], found["first_programs"], found["votes"], found["go_on_recall"]) == (0.8, 0.6, 0.85, 0.9)
    assert (found["seed_accuracy"], found["seed_first_programs"], found["seed_go_on_recall"]) == (0.6, 0.5, 0.4)
    assert (found["first_right"], found["kept"], found["several"], found["tokens"], found["trained"]) == (0.55, 0.5, 0.2, 500, 900)
    assert not {"seed_votes", "false_alarms"} & set(found)
