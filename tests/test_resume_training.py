"""A real training run that is killed at random moments, whose disk refuses, or whose newest checkpoint is damaged, goes on to the numbers of one that was not."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from etude.cli import main
from etude.models.language import LanguageModel
from etude.run import Run, without_time
from etude.summary import Summary

STEPS = 6
ARGUMENTS = [
    *("--reward", "reward.py:parity", "--steps", str(STEPS), "--tasks-per-step", "2", "--group-size", "4", "--max-new-tokens", "12"),
    *("--eval-tasks", "2", "--eval-samples", "2", "--evaluate-every", "1", "--checkpoint-every", "2", "--threads", "1", "--quiet"),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reward.py").write_text("import zlib\n\ndef parity(task, text):\n    return float(zlib.crc32(text.encode()) % 2)\n")


def recorded(folder: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    run = Run.open(folder)
    return [without_time(line) for line in run.metrics()], list(run.trajectories_log)


def train_and_kill(arguments: list[str], lines: int, delay: float) -> int:
    """Start the command, let it say `lines` lines (one an evaluation) and go on for `delay` seconds, and kill it. Returns its exit code."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "train", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    with process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.returncode


def test_kill_9_at_random_moments_then_resume_equals_the_uninterrupted_run() -> None:
    assert main(["train", "grpo", "--out", "whole", *ARGUMENTS]) == 0
    moments = random.Random(20)
    codes = [train_and_kill(["grpo", "--out", "killed", *ARGUMENTS], moments.randint(2, 4), moments.uniform(0, 0.3))]
    codes.append(train_and_kill(["--resume", "killed"], moments.randint(1, 2), moments.uniform(0, 0.3)))
    assert -signal.SIGKILL in codes
    assert set(codes) <= {-signal.SIGKILL, 0}
    assert main(["train", "--resume", "killed"]) == 0
    assert recorded("killed") == recorded("whole")
    ended = Summary.read(Path("killed"))
    assert ended is not None
    assert (ended.status, ended.step) == ("finished", STEPS)
    kept = [Run.open(name).checkpoints.load(STEPS) for name in ("killed", "whole")]
    assert kept[0].path.joinpath("state.safetensors").read_bytes() == kept[1].path.joinpath("state.safetensors").read_bytes()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file that this process writes may grow beyond `size` bytes: the system refuses, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_checkpoint_ends_with_exit_code_1_and_the_run_goes_on_later(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "grpo", "--out", "whole", *ARGUMENTS]) == 0
    assert main(["train", "grpo", "--out", "run", *ARGUMENTS, "--steps", "2"]) == 0
    capsys.readouterr()
    with files_of_at_most(1_000_000):  # a checkpoint of tiny has 12 MB
        assert main(["train", "--resume", "run", "--steps", str(STEPS)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "error: could not write the checkpoint of step" in said
    assert "The checkpoint of step 2 is intact: free space or fix the folder, then resume from it" in said
    assert "Traceback" not in said
    assert main(["train", "--resume", "run"]) == 0
    assert recorded("run") == recorded("whole")


def test_a_disk_that_takes_no_model_says_so_and_the_model_comes_with_the_next_resume(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "save", full)
        assert main(["train", "grpo", "--out", "run", *ARGUMENTS, "--steps", "1"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "error: the run in run has finished, but its model or report could not be written" in said
    assert "No space left on device. Free space or fix the folder, then go on with --resume run" in said
    assert "Traceback" not in said
    assert not Path("run/model").exists()
    assert main(["train", "--resume", "run"]) == 0
    assert Path("run/model/model.safetensors").is_file()


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "grpo", "--out", "run", *ARGUMENTS, "--steps", "1"]) == 0
    for state in Path("run/checkpoints").glob("step-*/state.safetensors"):
        state.write_bytes(state.read_bytes()[:-1])
    before = Path("run/metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--steps", "2"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "error: no checkpoint in run/checkpoints can be used (steps 0, 1 are damaged); start a new run in another folder" in said
    assert "Traceback" not in said
    assert Path("run/metrics.jsonl").read_bytes() == before


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "grpo", "--out", "whole", *ARGUMENTS]) == 0
    assert main(["train", "grpo", "--out", "run", *ARGUMENTS, "--steps", "4", "--keep-last", "3"]) == 0
    damaged = Path("run/checkpoints/step-4/state.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--steps", str(STEPS)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: " in said
    assert "step-4" in said
    assert "Traceback" not in said
    assert recorded("run") == recorded("whole")
