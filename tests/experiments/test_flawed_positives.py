"""The experiment on failed calls in right answers, at its smallest."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.errors import InputError
from etude.evals.experiment import SHARED
from etude.experiments.flawed_positives import flawed_positives

SMALL = {"warm_steps": 1, "warm_tasks_per_step": 8, "tasks_per_step": 4, "group_size": 8, "eval_tasks": 8, "eval_samples": 1, "evaluate_every": 0}


def test_it_warms_up_trains_and_measures_and_repeats_exactly() -> None:
    settings = {**SMALL, "method": "rstar2", "tasks": "calculator:sloppy=0.6,spare_turns=2", "lr": 1e-3}
    found = flawed_positives(0, settings, "1-steps")
    assert set(found) == {"error_rate_first", "error_rate", "length_first", "length", "tool_free", "pass_rate_first", "pass_rate"}
    assert all(0 <= found[name] <= 1 for name in ("error_rate_first", "error_rate", "tool_free", "pass_rate"))
    assert found["error_rate_first"] == found["error_rate"]
    assert found["length"] > 0
    assert flawed_positives(0, settings, "1-steps") == found


def test_arms_that_begin_alike_share_their_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "method": "grpo", "tasks": "calculator:sloppy=0.6,spare_turns=2", "lr": 1e-3}
    monkeypatch.setenv(SHARED, str(tmp_path))
    found = flawed_positives(0, settings, "1-steps")
    (start,) = (path for path in tmp_path.iterdir() if path.is_dir())
    made = start.stat().st_mtime_ns
    # Another arm with the same warm-up takes what is there.
    assert flawed_positives(0, settings, "1-steps") == found
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [start]
    assert start.stat().st_mtime_ns == made


def test_it_needs_a_method_and_tasks() -> None:
    with pytest.raises(InputError, match="no setting 'method'"):
        flawed_positives(0, {"tasks": "calculator"}, "1-steps")
