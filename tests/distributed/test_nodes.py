"""A run on a cluster of several nodes. They are on one machine, but nothing is shared between them that Ray does not carry: each has its own processes and object store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from etude.run import without_time

pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")

QUICK = (
    "train grpo --device cpu --threads 1 --steps 3 --tasks-per-step 4 --group-size 4 --eval-tasks 4 --eval-samples 2 --evaluate-every 3 --quiet".split()  # noqa: SIM905
)


@contextmanager
def nodes(*cpus: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a head, and the process that holds it and nodes with so many CPUs."""
    command = [sys.executable, str(Path(__file__).with_name("several_nodes.py")), *map(str, cpus)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield answer(process, "address "), process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def answer(process: subprocess.Popen[str], begins: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(begins):
            return line.removeprefix(begins).strip()
    raise AssertionError(f"the cluster ended without saying {begins!r}")


def etude(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"RAY_ADDRESS": ""}
    return subprocess.Popen([sys.executable, "-m", "etude", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def measured(folder: Path) -> list[dict[str, Any]]:
    return [without_time(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


REWARD = """
import time
from pathlib import Path

def score(task, text):
    hold, begun, waiting = Path({hold!r}), Path({begun!r}), Path({waiting!r})
    while hold.exists() and begun.exists():
        waiting.touch()
        time.sleep(0.02)
    return len(text) % 3 / 2
"""


def test_processes_on_several_nodes_do_what_one_does_also_where_a_node_is_lost(tmp_path: Path) -> None:
    hold, waiting, code = tmp_path / "hold", tmp_path / "waiting", tmp_path / "reward.py"
    code.write_text(REWARD.format(hold=str(hold), begun=str(tmp_path / "three" / "metrics.jsonl"), waiting=str(waiting)))
    options = (*QUICK, "--reward", f"{code}:score")
    finished(etude(*options, "--out", str(tmp_path / "one")))
    one = measured(tmp_path / "one")
    # Two samplers and a worker fill the nodes: whichever goes takes one of them with it.
    with nodes(1, 1, 1) as (address, process):
        ray = ("--engine", "ray", "--samplers", "2", "--env-workers", "1", "--ray-address", address)
        assert "is lost" not in finished(etude(*options, "--out", str(tmp_path / "two"), *ray))
        # The run waits for the rewards of its first step until the node is gone, however fast it is.
        hold.touch()
        running = etude(*options, "--out", str(tmp_path / "three"), *ray)
        while running.poll() is None and not waiting.exists():
            time.sleep(0.02)
        for command in ("lose 0", "join 1"):
            assert process.stdin is not None
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
            answer(process, "done")
        hold.unlink()
        assert "is lost" in finished(running)
    # What attempts share is read once by each sampler that has some of them, and once more by one in a lost one's place.
    reading = {"prompt_tokens", "forward_equivalents", "decode_steps"}
    for name in ("two", "three"):
        for line, expected in zip(measured(tmp_path / name), one, strict=True):
            assert {k: v for k, v in line["ledger"].items() if k not in reading} == {k: v for k, v in expected["ledger"].items() if k not in reading}
            assert line | {"ledger": 0} == pytest.approx(expected | {"ledger": 0}, rel=1e-3, abs=1e-4)


def finished(run: subprocess.Popen[str]) -> str:
    """What a run says, once it has ended well."""
    output, _ = run.communicate(timeout=240)
    assert run.returncode == 0, output
    return output
