"""Experiments in processes of their own: run once, kept, and crashes told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from etude.claim import Arm
from etude.errors import InputError
from etude.evals.experiment import load_experiment, run_experiment

TRIALS = """
from pathlib import Path

def coin(seed, settings, budget):
    with open(settings["log"], "a") as file:
        file.write(f"{seed} {budget}\\n")
    if settings.get("bias", 0) < 0:
        raise ValueError("no such coin")
    return {"heads": seed % 2 + settings.get("bias", 0), "nothing": float("nan")} if settings.get("undefined") else {"heads": seed % 2 + settings.get("bias", 0)}
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trials.py").write_text(TRIALS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "log"


def test_every_arm_is_run_with_every_seed_and_only_once(log: Path, tmp_path: Path) -> None:
    arms = [Arm("fair"), Arm("bent", settings={"bias": 3})]
    asked = {"common": {"log": str(log)}, "budget": "7-steps", "folder": tmp_path / "runs", "workers": 2}
    runs = run_experiment("trials:coin", arms, seeds=[0, 1], **asked)
    assert [(r.arm, r.seed, r.status, r.values) for r in runs] == [
        ("fair", 0, "finished", {"heads": 0.0}),
        ("fair", 1, "finished", {"heads": 1.0}),
        ("bent", 0, "finished", {"heads": 3.0}),
        ("bent", 1, "finished", {"heads": 4.0}),
    ]
    assert sorted(log.read_text().splitlines()) == ["0 7-steps", "0 7-steps", "1 7-steps", "1 7-steps"]
    assert run_experiment("trials:coin", arms, seeds=[0, 1], **asked) == runs
    assert len(log.read_text().splitlines()) == 4
    # Another request is another experiment.
    again = run_experiment("trials:coin", [Arm("fair", settings={"bias": 1})], seeds=[0], **asked)
    assert again[0].values == {"heads": 1.0}
    kept = json.loads((tmp_path / "runs" / "fair" / "seed-0" / "result.json").read_text())
    assert kept["request"]["settings"] == {"log": str(log), "bias": 1}


def test_crashes_and_undefined_results_are_told(log: Path, tmp_path: Path) -> None:
    arms = [Arm("no coin", settings={"bias": -1}), Arm("undefined", settings={"undefined": True})]
    runs = run_experiment("trials:coin", arms, common={"log": str(log)}, budget="1-steps", seeds=[0], folder=tmp_path / "runs", workers=2)
    assert [r.status for r in runs] == ["crashed", "crashed"]
    assert runs[0].error == "ValueError: no such coin"
    assert "expected finite numbers" in (runs[1].error or "")
    assert not list((tmp_path / "runs").rglob("result.json"))


def test_seeds_that_share_a_process_are_runs_of_their_own(log: Path, tmp_path: Path) -> None:
    source = tmp_path / "trials.py"
    source.write_text(source.read_text().replace('if settings.get("bias", 0) < 0', "if seed == 1") + "import os\nfirst = coin\n")
    with source.open("a") as file:
        file.write('\ndef coin(seed, settings, budget):\n    return {**first(seed, settings, budget), "process": os.getpid()}\n')
    asked = {"common": {"log": str(log)}, "budget": "1-steps", "folder": tmp_path / "runs", "workers": 1}
    runs = run_experiment("trials:coin", [Arm("one"), Arm("two")], seeds=[0, 1, 2], together=2, **asked)
    assert [(r.arm, r.seed, r.status) for r in runs] == [(arm, seed, "crashed" if seed == 1 else "finished") for arm in ("one", "two") for seed in (0, 1, 2)]
    assert runs[1].error == "ValueError: no such coin"
    again = run_experiment("trials:coin", [Arm("one"), Arm("two")], seeds=[0, 1, 2], together=3, **asked)
    # What was there is kept, seed by seed; what crashed is tried again.
    assert [r.values for r in again] == [r.values for r in runs]
    assert len(log.read_text().splitlines()) == 8
    assert len({r.values["process"] for r in runs if r.values}) == 4


def test_an_experiment_that_is_not_there_is_refused(log: Path, tmp_path: Path) -> None:
    for name, said in (("trials", "module:function"), ("absent_module:f", "cannot be imported"), ("trials:coins", "Did you mean coin")):
        with pytest.raises(InputError, match=said):
            load_experiment(name)
