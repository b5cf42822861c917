"""`etude experiment`: studies are listed without being imported, take their options as flags, and leave files and tables."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from etude.cli import main
from etude.experiments.study import Parts, in_parts, known_studies, load_study, part


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


def test_an_interrupted_study_goes_on_with_the_parts_it_has(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from etude.experiments import gradient_noise as module

    flags = ["experiment", "gradient-noise", "--tasks-per-seed", "4", "--group-size", "4", "--seeds", "2"]
    assert main([*flags, "--out", "whole"]) == 0
    original, done = module.gradient_noise, []

    def interrupted(seed: int, settings: dict[str, object], budget: str) -> dict[str, float]:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append((settings["baseline"], seed))
        return original(seed, settings, budget)

    monkeypatch.setattr(module, "gradient_noise", interrupted)
    with suppress(KeyboardInterrupt):
        assert main([*flags, "--out", "parted"]) != 0
    assert len(json.loads(Path("parted/parts.json").read_text())["parts"]) == 3
    capsys.readouterr()
    again: list[object] = []
    monkeypatch.setattr(module, "gradient_noise", lambda seed, settings, budget: again.append(seed) or original(seed, settings, budget))
    assert main([*flags, "--out", "parted"]) == 0
    assert "has 3 parts that an earlier run was done with" in capsys.readouterr().err
    assert len(again) == 3
    assert {path.name: path.read_bytes() for path in Path("parted").iterdir()} == {path.name: path.read_bytes() for path in Path("whole").iterdir()}


def test_parts_of_other_settings_or_a_broken_file_are_done_again(tmp_path: Path) -> None:
    file, told = tmp_path / "parts.json", []
    first = Parts(file, {"seeds": 2}, told.append)
    assert first("a", lambda: {1: (2.5, None)}) == {"1": [2.5, None]}
    assert Parts(file, {"seeds": 2})("a", lambda: 0) == {"1": [2.5, None]}
    assert Parts(file, {"seeds": 3})("a", lambda: 0) == 0
    file.write_text("{")
    assert len(Parts(file, {"seeds": 3})) == 0
    with in_parts(first):
        assert part("b", lambda: 7) == 7
    assert told == ["a", "b"]
    assert part("b", lambda: 8) == 8
    first.finish()
    assert not file.exists()


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
