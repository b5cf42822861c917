"""Run folders as a driver would leave them, with numbers that are made up but repeat."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LEDGER = {
    "generated_tokens": 486_400,
    "prompt_tokens": 22_400,
    "judged_tokens": 0,
    "trained_tokens": 460_800,
    "rollouts": 25_600,
    "model_calls": {"judge": 12},
    "steps": 100,
    "seconds": 112.0,
    "evaluation_tokens": 33_000,
}


def evaluation_row(step: int, share: float, half: float = 0.04) -> dict[str, Any]:
    """An evaluation line with pass@1 of `share` and pass@2 ... pass@8 above it."""
    row: dict[str, Any] = {"step": step, "eval/length": 20.0 - step / 50, "eval/kl_to_start": step / 1000}
    for k in (1, 2, 4, 8):
        value = 1 - (1 - share) ** k**0.5
        row |= {f"eval/pass@{k}": value, f"eval/pass@{k}_low": value - half, f"eval/pass@{k}_high": min(1.0, value + half)}
    return row


def write_run(
    folder: Path, *, steps: int = 20, every: int = 5, start: float = 0.34, end: float = 0.78, result: dict[str, Any] | None = None, half: float = 0.04
) -> Path:
    """A run whose pass@1 goes from `start` to `end`; `result` None leaves result.json out."""
    random_ = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines, trajectories, samples = [], [], []
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            lines.append(evaluation_row(step, start + (end - start) * step / max(1, steps), half))
        if step in (0, steps):
            samples += [
                {
                    "step": step,
                    "task_id": f"held/{i}",
                    "prompt": f"{i} + 1 = ?",
                    "answer": str(i + 1),
                    "text": f"it is {i + 1 + (step == 0)}",
                    "correct": float(step > 0),
                }
                for i in range(3)
            ]
        if step == 0:
            continue
        lines.append(
            {
                "step": step,
                "reward/mean": random_.random(),
                "reward/correct": random_.random(),
                "signal/groups_with_spread": 0.8,
                "rollout/length": 20 + random_.random(),
                "rollout/entropy": 0.5,
                "loss/total": random_.gauss(0, 1),
                "loss/grad_norm": random_.random(),
                "time/step": 0.7,
                "time/rollout": 0.5,
                "mine/own": float(step),
                "ledger": {**LEDGER, "steps": step},
            }
        )
        trajectories += [
            {
                "step": step,
                "task_id": f"train/{step}-{i}",
                "prompt": "2 + 2 = ?",
                "text": f"attempt {i}",
                "reward": float(i % 2),
                "rewards": {"correct": float(i % 2)},
                "correct": float(i % 2),
                "length": 7,
                "stop_reason": "eos",
                "sample": i,
            }
            for i in range(2)
        ]
    for name, rows in (("metrics", lines), ("trajectories", trajectories), ("samples", samples)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(f"method: made-up\ninputs:\n  model: ./models/tiny\n  tasks: arithmetic\nrun:\n  seed: 3\n  steps: {steps}\n")
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "packages": {"torch": "2.13", "peft": None}}))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`write_run` into a folder of the test's own; a finished run unless told otherwise."""

    def make(**options: Any) -> Path:
        options.setdefault(
            "result", {"status": "finished", "reason": "all steps are done", "method": "made-up", "ledger": {**LEDGER, "steps": options.get("steps", 20)}}
        )
        return write_run(tmp_path / "run", **options)

    return make
