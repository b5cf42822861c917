"""A real training run that is killed at random moments, or whose newest checkpoint is damaged, goes on to the numbers of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from etude.cli import main
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
