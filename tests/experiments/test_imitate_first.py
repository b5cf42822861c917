"""What a start is taught before the run of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import etude.experiments.imitate_first as experiment


def test_a_skill_comes_before_the_habit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[dict[str, Any]] = []

    def warm_start(settings: Mapping[str, Any], folder: Path, *, name: str = "start") -> Path:
        taught.append({**settings})
        return folder / name

    monkeypatch.setattr(experiment, "warm_start", warm_start)
    habit = {"tasks": "check-and-fix:pool=8", "warm_tasks": "check-and-fix:copies=1", "warm_steps": 9}
    skill = {"skill_tasks": "check-and-fix", "skill_steps": 5, "skill_lr": 2e-3}
    assert experiment.taught_start(3, {**habit, **skill}, tmp_path) == tmp_path / "start"
    first, then = taught
    assert (first["tasks"], first["model"], first["steps"], first["lr"], first["seed"]) == ("check-and-fix", "tiny", 5, 2e-3, 3)
    assert (then["tasks"], then["model"], then["steps"], then["seed"]) == ("check-and-fix:copies=1", str(tmp_path / "skilled"), 9, 3)
    assert not any(name.startswith("skill") for name in then)

    assert experiment.taught_start(3, habit, tmp_path) == tmp_path / "start"
    assert len(taught) == 3
    assert taught[2]["model"] == "tiny"
