"""The command line: help without torch, exit codes, messages for bad input, and a run from begin to resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from walk_method import Walk, registered_walk

import etude.api
import etude.cli
from etude.cli import main
from etude.errors import EtudeError
from etude.summary import Summary

FAST = ["--steps", "3", "--evaluate-every", "0", "--quiet"]


@pytest.fixture(autouse=True)
def _walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The method `walk` is known, runs go below the test's folder, and messages are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("ETUDE_DEBUG", raising=False)
    with registered_walk():
        yield


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("statement", ["import etude", "from etude.cli import main; main(['--help'])", "from etude import get_method, Task, TrainConfig, Run"])
def test_light_things_load_no_torch(statement: str) -> None:
    heavy = "[m for m in ('torch', 'transformers', 'numpy') if m in sys.modules]"
    done = subprocess.run([sys.executable, "-c", f"{statement}\nimport sys\nprint('heavy:', {heavy})"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_search_needs_no_torch(tmp_path: Path) -> None:
    code = f"import sys; from etude.cli import main; main(['search', 'hgm', '--out', {str(tmp_path / 'run')!r}, '--budget', '20-evaluations']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert f"etude search --resume {tmp_path / 'run'} --budget 40-evaluations" in done.stdout
    assert (tmp_path / "run" / "model" / "agent.json").is_file()


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "etude", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "etude COMMAND" in done.stdout


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in etude.cli.COMMANDS:
        assert f"\n  {command}" in shown
    assert main([]) == 2


def test_search_lists_only_what_searches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "breeds agents" in shown
    assert "Goes from 0 towards 1" not in shown
    assert main(["train", "--help"]) == 0
    assert "breeds agents" not in capsys.readouterr().out
    assert main(["search", "hgm", "--help"]) == 0
    assert "--iterations INT" in one_line(capsys.readouterr().out)


def test_train_help_lists_the_methods_and_a_method_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    assert "Goes from 0 towards 1" in capsys.readouterr().out
    assert main(["train"]) == 2
    assert "walk" in capsys.readouterr().err
    assert main(["train", "walk", "--help"]) == 0
    shown = one_line(capsys.readouterr().out)
    for text in ("--pull FLOAT", "How far a step goes. (default: 0.1)", "How weights are updated.", "--group-size", "--config FILE.yaml", "--no-share-prompts"):
        assert text in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "there is no command 'trian'. Did you mean train"),
        (["search", "walk"], "walk trains a model: `etude train walk`"),
        (["search", "--steps", "3"], "no method stands before --steps"),
        (["search", "hgm", "--budget", "9-lines"], "the unknown unit 'lines'"),
        (["train", "wakl"], "there is no method 'wakl'. Did you mean walk"),
        (["train", "--steps", "3"], "no method stands before --steps"),
        (["train", "walk", "--group-size", "0"], "--group-size is 0; expected a whole number, 1 or more"),
        (["train", "walk", "--lr", "0"], "--lr is 0.0; expected a number, more than 0"),
        (["train", "walk", "--steps", "-1"], "--steps is -1; expected a whole number, 0 or more"),
        (["train", "walk", "--eval-samples", "0"], "--eval-samples is 0; expected"),
        (["train", "walk", "--groupsize", "3"], "Perhaps you meant: --group-size"),
        (["train", "walk", "--group-size", "many"], "--group-size"),
        (["train", "walk", "--budget", "lots"], "the budget 'lots' cannot be read"),
        (["train", "walk", "--track", "excel"], "there is no tracker 'excel'"),
        (["train", "walk", "--model", "absent"], "there is no model 'absent'"),
        (["train", "walk", "--config", "absent.yaml"], "cannot read absent.yaml"),
        (["train", "walk", "--config", "bad.yaml"], "bad.yaml: there is no option 'lern_rate'"),
        (["train", "--config", "unnamed.yaml"], "unnamed.yaml names no method"),
        (["train", "--config", "bad.yaml", "--resume", "full"], "--config and --resume were both given"),
        (["train", "walk", "--out", "full"], "the folder full is not empty"),
        (["train", "--resume", "full"], "full holds no run"),
        (["train", "--resume", "absent"], "absent holds no run"),
        (["report", "full"], "full holds no run"),
        (["report"], "no run is named"),
        (["eval"], "no model is named"),
        (["eval", "tiny", "--samples", "0"], "--samples is 0; expected a whole number, 1 or more"),
        (["eval", "tiny", "--sample", "3"], "--samples INT"),
        (["eval", "tiny", "--out", "absent/x.json"], "there is no folder absent"),
        (["eval", "tiny", "--tasks", "arithmetik"], "there is no task set 'arithmetik'. Did you mean arithmetic"),
        (["list", "--family", "test"], "there is no family 'test'. Did you mean tests"),
    ],
)
def test_bad_input_is_refused_with_exit_code_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    Path("bad.yaml").write_text("lern_rate: 1\n")
    Path("unnamed.yaml").write_text("lr: 1\n")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert said in one_line(captured.err.replace("│", " "))
    assert "Traceback" not in captured.err
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_a_run_begins_reports_exports_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "walk", *FAST]) == 0
    folder = Path("runs/walk-arithmetic-seed0")
    shown = capsys.readouterr().out
    assert str(folder / "report.html") in shown
    assert (folder / "report.html").is_file()
    assert float((folder / "model/place.txt").read_text()) == pytest.approx(1 - 0.9**3)
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert (saved["method"]["slug"], saved["method"]["pull"], saved["run"]["steps"]) == ("walk", 0.1, 3)

    assert main(["train", "walk", *FAST]) == 0
    assert Path("runs/walk-arithmetic-seed0-2").is_dir()

    assert main(["train", "--resume", str(folder), "--steps", "5"]) == 0
    assert float((folder / "model/place.txt").read_text()) == pytest.approx(1 - 0.9**5)
    assert yaml.safe_load((folder / "config.yaml").read_text())["run"]["steps"] == 5
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()][-1] == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pull", "0.5"], "a resumed run keeps its --pull: it was begun with 0.1, not 0.5"),
        (["--seed", "1"], "a resumed run keeps its --seed"),
        (["--model", "smollm2"], "a resumed run keeps its --model"),
        (["--out", "elsewhere"], "a resumed run keeps its --out"),
        (["--steps", "-1"], "--steps is -1"),
    ],
)
def test_resuming_refuses_what_would_change_the_past(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "walk", *FAST, "--out", "run"]) == 0
    before = Path("run/config.yaml").read_text()
    assert main(["train", "--resume", "run", *arguments]) == 2
    assert said in one_line(capsys.readouterr().err)
    assert Path("run/config.yaml").read_text() == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place that takes no file from anybody, root included")
def test_resuming_in_a_folder_that_cannot_be_written_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "walk", *FAST, "--out", "run"]) == 0
    before = Path("run/metrics.jsonl").read_bytes()
    Path("run/.lock").unlink()
    Path("run/.lock").symlink_to("/proc/no-file-can-be-made-here")
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--steps", "5"]) == 2
    assert "error: the folder run cannot be written: " in one_line(capsys.readouterr().err)
    assert Path("run/metrics.jsonl").read_bytes() == before


def test_a_failing_disk_is_said_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(given: list[str]) -> int:
        raise OSError(5, "Input/output error", "runs/x")

    monkeypatch.setitem(etude.cli.COMMANDS, "list", fail)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == "error: [Errno 5] Input/output error: 'runs/x' (--debug shows where)\n"
    with pytest.raises(OSError, match="Input/output"):
        main(["list", "--debug"])


def test_a_gpu_without_memory_is_said_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(given: list[str]) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the documentation")

    monkeypatch.setitem(etude.cli.COMMANDS, "list", fail)
    assert main(["list"]) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert said.startswith("error: GPU memory ran out (CUDA out of memory. Tried to allocate 2 GiB.); lower --slots")
    monkeypatch.setitem(etude.cli.COMMANDS, "list", lambda given: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def test_resuming_as_another_method_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "walk", *FAST, "--out", "run"]) == 0
    assert main(["train", "stroll", "--resume", "run"]) == 2
    assert "is one of walk, not of stroll" in capsys.readouterr().err


def test_flags_go_before_the_file_and_the_file_before_defaults() -> None:
    Path("settings.yaml").write_text("method: walk\npull: 0.5\nlr: 0.25\nsteps: 3\nquiet: true\nevaluate_every: 0\n")
    assert main(["train", "--config", "settings.yaml", "--lr", "0.125", "--out", "run"]) == 0
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    assert saved["method"]["learner"]["lr"] == 0.125
    assert saved["method"]["pull"] == 0.5
    assert saved["method"]["group_size"] == 16
    assert main(["train", "--config", "run/config.yaml", "--out", "again"]) == 0
    again = yaml.safe_load(Path("again/config.yaml").read_text())
    assert again == {**saved, "run": {**saved["run"], "out": "again"}}


def test_a_run_reported_again_is_the_same_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "walk", *FAST, "--out", "run"]) == 0
    Path("run/report.html").unlink()
    capsys.readouterr()
    assert main(["report", "run"]) == 0
    assert capsys.readouterr().out.strip() == "run/report.html"
    assert Path("run/report.html").is_file()


class Special(EtudeError):
    exit_code = 7


def test_errors_have_their_own_exit_code_and_a_traceback_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(given: list[str]) -> int:
        raise Special("etude[lora] went wrong")

    monkeypatch.setitem(etude.cli.COMMANDS, "list", fail)
    assert main(["list"]) == 7
    assert capsys.readouterr().err == "error: etude[lora] went wrong\n"
    with pytest.raises(Special):
        main(["list", "--debug"])
    monkeypatch.setenv("ETUDE_DEBUG", "1")
    with pytest.raises(Special):
        main(["list"])


def test_an_interrupt_ends_with_130_and_the_run_can_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    step = Walk.step

    def interrupted(self: Walk) -> dict[str, float]:
        if self.run.step == 2:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Walk, "step", interrupted)
        assert main(["train", "walk", *FAST, "--checkpoint-every", "1", "--out", "run"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert Path("run/report.html").is_file()
    assert main(["train", "--resume", "run"]) == 0
    ended = Summary.read(Path("run"))
    assert ended is not None
    assert (ended.status, ended.step) == ("finished", 3)


def test_a_clean_stop_also_says_that_the_run_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Walk.step

    def stopped(self: Walk) -> dict[str, float]:
        if self.run.step == 2:
            os.kill(os.getpid(), 15)
        return step(self)

    monkeypatch.setattr(Walk, "step", stopped)
    assert main(["train", "walk", *FAST, "--out", "run"]) == 130
    assert Path("run/model/place.txt").is_file()


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    first = capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == first
    assert first.startswith("etude 0.")


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warn(given: list[str]) -> int:
        import warnings

        warnings.warn("the disk is [nearly] full", stacklevel=1)
        return 0

    monkeypatch.setitem(etude.cli.COMMANDS, "list", warn)
    assert main(["list"]) == 0
    assert capsys.readouterr().err == "warning: the disk is [nearly] full\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "etude", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
