"""What a run does for the tasks that its start hardly ever solved, at its smallest."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.evals.experiment import SHARED
from etude.experiments.hard_tasks import coverage, hard_tasks


def test_coverage_is_the_mean_over_tasks() -> None:
    # Of 16 attempts 0 and 2 are right. pass@8 of the second: 1 - (8 * 7) / (16 * 15).
    assert coverage([0, 2], 16) == pytest.approx({"pass_1": 1 / 16, "pass_8": (1 - 56 / 240) / 2, "pass_all": 0.5})
    assert coverage([], 16) == {}


def test_arms_go_on_from_one_model_that_another_method_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED, str(tmp_path))
    start = {"warm_method": "brorl", "warm_steps": 1, "warm_tasks_per_step": 2, "warm_group_size": 4, "warm_sampling_rounds": 1}
    small = {"tasks": "arithmetic", "group_size": 4, "measured_tasks": 6, "measured_samples": 4, "lr": 1e-4}
    narrow = hard_tasks(0, {**start, **small, "method": "rloo", "tasks_per_step": 2, "budget": "2-steps"}, "1-steps")
    wide = hard_tasks(0, {**start, **small, "method": "brorl", "tasks_per_step": 1, "group_size": 16, "sampling_rounds": 1}, "1-steps")
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    assert (narrow["rollouts"], wide["rollouts"]) == (16, 16)
    for name in ("hard", "solved", "pass_1_first", "pass_all_first"):
        assert narrow[name] == wide[name], name
    assert narrow["pass_1"] <= narrow["pass_8"] == narrow["pass_all"]
    # What tasks gained makes up for what others lost, and for the change of the mean.
    assert 0 <= narrow["lost"] <= narrow["worst"] <= 1
    assert narrow["pass_1"] - narrow["pass_1_first"] + narrow["lost"] >= -1e-9
