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


def honest(task: Task, text: str) -> float:
    """Pays for the right answer."""
    return float(text.strip().endswith(f"answer: {task.answer}"))


def trained(folder: Path, reward: Callable[[Task, str], float], started: Callable[[Run], None] = id, **settings: Any) -> tuple[Summary, History, Any]:
    config = build_config("grpo", out=folder, reward=reward, **{**SETTINGS, **settings})
    run = Run.create(config.run, folder_name="run")
    started(run)
    method = get_method("grpo")(config, run)
    return drive(method, run), History(run.probe_log), method


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
    assert {"exploited", "lost", "one_answer"} <= {name for collapse in summary.collapses for name in collapse["signs"]}
    assert history.readings()[-1].answers[0][0] == "7"


def test_too_many_rollbacks_end_the_run_with_the_model_as_it_was(tmp_path: Path) -> None:
    summary, history, method = trained(tmp_path / "run", brevity, on_collapse="rollback", most_rollbacks=1, steps=30, lr=2e-3)
    assert (summary.status, [c["action"] for c in summary.collapses]) == ("collapsed", ["rollback", "stop"])
    assert method.read_probe().accuracy == history.readings()[0].accuracy
    # The same tasks under the same weights, tried with other random numbers.
    rewards = {line["step"]: line["reward/mean"] for line in Run.open(tmp_path / "run").metrics() if "reward/mean" in line}
    again = summary.collapses[0]["step"] + 1
    assert rewards[again] != rewards[1]


def test_an_honest_reward_is_left_alone_and_once_it_turns_the_run_goes_back_to_its_honest_days(tmp_path: Path) -> None:
    runs: list[Run] = []

    def turning(task: Task, text: str) -> float:
        return honest(task, text) if not runs or runs[0].step <= 9 else brevity(task, text)

    summary, history, method = trained(tmp_path / "run", turning, runs.append, on_collapse="rollback", steps=12, lr=1e-3)
    readings = {line["step"]: line for line in Run.open(tmp_path / "run").probe_log}
    accuracy = {step: line["metrics"]["probe/accuracy"] for step, line in readings.items()}
    assert accuracy[9] > accuracy[0] + 0.1
    assert not any(readings[step]["signs"] for step in (0, 3, 6, 9))
    assert "exploited" in readings[12]["signs"]
    best = history.best()
    assert best is not None
    assert (summary.status, readings[12]["to"]) == ("finished", best.step)
    assert best.step > 0
    assert method.read_probe().accuracy == best.accuracy
