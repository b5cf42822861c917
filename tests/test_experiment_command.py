"""`etude experiment`: studies are listed without being imported, take their options as flags, and leave files and tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from etude.cli import main
from etude.experiments.study import known_studies, load_study


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_listing_imports_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment"]) == 0
    shown = capsys.readouterr().out
    assert {"mass-balance", "gradient-noise"} <= known_studies().keys()
    assert all(name in shown and about in shown for name, about in known_studies().items())
    heavy = "[m for m in ('torch', 'numpy') if m in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"from etude.cli import main; main(['experiment'])\nimport sys\nprint({heavy})"], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(known_studies()))
def test_every_study_has_options_with_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_study(name).settings()
    assert main(["experiment", name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert known_studies()[name] in shown
    assert "--seed" in shown


def test_a_study_writes_numbers_and_charts_and_shows_tables(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--widths", "4", "16", "--updates", "20", "--total-draws", "320", "--seeds", "2", "--lr", "2e-3"]
    assert main(["experiment", "mass-balance", *flags]) == 0
    shown = capsys.readouterr().out
    folder = Path("runs/experiment-mass-balance")
    assert "At equal draws (320)" in shown
    record = json.loads((folder / "mass-balance.json").read_text())
    assert record["settings"]["widths"] == [4, 16]
    assert record["settings"]["state"]["lr"] == 2e-3
    assert record["values"]["equal_draws"]["4"]["updates"] == 80
    for stem in ("mass-balance-updates", "mass-balance-draws"):
        assert (folder / f"{stem}.svg").read_text().count("<path") > 4
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["experiment", "mass-balance", *flags, "--out", "again"]) == 0
    assert {path.name: path.read_bytes() for path in Path("again").iterdir()} == before


def test_gradients_are_looked_at_under_every_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "gradient-noise", "--tasks-per-seed", "4", "--group-size", "4", "--seeds", "1", "--out", "found"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("none", "batch-mean", "leave-one-out"))
    values = json.loads(Path("found/gradient-noise.json").read_text())["values"]
    assert {name: len(runs) for name, runs in values.items()} == {"none": 1, "batch-mean": 1, "leave-one-out": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mass-balans"], "there is no experiment 'mass-balans'. Did you mean mass-balance"),
        (["--seeds", "3"], "no experiment stands before --seeds"),
        (["mass-balance", "--seeds", "0"], "--seeds is 0; expected a whole number, 1 or more"),
        (["mass-balance", "--out", "file"], "--out file is a file; expected a folder"),
        (["mass-balance", "--total-draws", "3", "--updates", "1"], "no update of 4 draws"),
    ],
)
def test_bad_input_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert main(["experiment", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()
