"""Real runs of GRPO on tiny: rewards that can be had without being right are found out, and an honest one is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.driver import drive
from etude.method import get_method
from etude.run import Run
from etude.settings import build_config
from etude.summary import Summary
from etude.types import Task
from etude.watch import History

SETTINGS: dict[str, Any] = {
    **{"tasks_per_step": 8, "group_size": 8, "warmup_steps": 0, "threads": 1, "save_trajectories": 0},
    **{"eval_tasks": 2, "eval_samples": 1, "eval_kl": False, "evaluate_every": 0, "checkpoint_every": 0},
    **{"probe_size": 24, "probe_samples": 4, "probe_every": 3},
}


def brevity(task: Task, text: str) -> float:
    """Pays for a short answer, right or wrong."""
    return max(0.0, 1 - len(text) / 60)


def seven(task: Task, text: str) -> float:
    """Pays for one and the same answer, and a little for brevity, by which it is found sooner."""
    return float(text.strip().endswith("answer: 7")) + 0.2 * (len(text) < 24)


def trained(folder: Path, reward: Callable[[Task, str], float] | None = None, **settings: Any) -> tuple[Summary, History, Any]:
    config = build_config("grpo", out=folder, reward=reward, **{**SETTINGS, **settings})
    run = Run.create(config.run, folder_name="run")
    method = get_method("grpo")(config, run)
    return drive(method, run), History(run.probe_log), method


def accuracies(history: History) -> list[float]:
    return [reading.metrics["probe/accuracy"] for reading in history.readings()]


def test_a_reward_for_brevity_is_found_out_and_the_run_stops(tmp_path: Path) -> None:
    summary, history, _ = trained(tmp_path / "run", brevity, on_collapse="stop", steps=30, lr=2e-3)
    assert summary.status == "collapsed"
    assert summary.step <= 9
    assert "exploited" in summary.collapses[-1]["signs"]
    first, last = history.readings()[0].metrics, history.readings()[-1].metrics
    assert last["probe/accuracy"] < first["probe/accuracy"] - 0.05
    assert last["probe/proxy"] > first["probe/proxy"] + 0.1


def test_a_reward_for_one_answer_ends_in_one_answer(tmp_path: Path) -> None:
    summary, history, _ = trained(tmp_path / "run", seven, probe="always", steps=15, lr=2e-3)
    assert summary.status == "finished"
    last = summary.collapses[-1]["signs"]
    assert {"exploited", "lost", "one_answer"} <= {name for c in summary.collapses for name in c["signs"]}, last
    assert history.readings()[-1].answers[0][0] == "7"


def test_a_rollback_restores_the_accuracy_on_the_probe(tmp_path: Path) -> None:
    summary, history, method = trained(tmp_path / "run", brevity, on_collapse="rollback", most_rollbacks=1, steps=30, lr=2e-3)
    assert (summary.status, [c["action"] for c in summary.collapses]) == ("collapsed", ["rollback", "stop"])
    best = history.best()
    assert best is not None
    assert method.read_probe().accuracy == best.accuracy
    # New steps drew new random numbers: the second collapse is another one.
    fallen = [line["metrics"]["probe/entropy"] for line in Run.open(tmp_path / "run").probe_log if line["signs"]]
    assert len(fallen) == 2
    assert fallen[0] != fallen[1]


def test_an_honest_reward_is_left_alone(tmp_path: Path) -> None:
    summary, history, _ = trained(tmp_path / "run", on_collapse="stop", steps=12, lr=1e-3)
    assert (summary.status, summary.step, summary.collapses) == ("finished", 12, [])
    assert accuracies(history)[-1] > accuracies(history)[0] + 0.05
