"""B-STaR: what the search chooses, what a round keeps and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.config import RunConfig
from etude.errors import InputError
from etude.method import get_method
from etude.models.language import LanguageModel
from etude.run import Run
from etude.settings import build_config
from etude.tasks.builtin import builtin_task_sets
from etude.types import Group, Segment, Task, Trajectory

SMALL: dict[str, Any] = {"tasks_per_round": 4, "group_size": 4, "search_tasks": 2, "eval_tasks": 2, "eval_samples": 4, "eval_kl": False}


def ready(folder: Path, tasks: str = "countdown", **settings: Any) -> Any:
    config = build_config("b-star", **{**SMALL, **settings})
    policy = LanguageModel.load("tiny", device="cpu")
    method: Any = get_method("b-star")(config, Run(folder, RunConfig(save_trajectories=0)), policy=policy, task_set=builtin_task_sets()[tasks]())
    method.setup()
    method.run.step = 1
    return method


def attempt(task: Task, reward: float, text: str, correct: float) -> Trajectory:
    return Trajectory(task, [1], [Segment([5], "policy", text, trained=True)], "eos", reward=reward, rewards={"correct": correct})


def drawn(task: Task, temperature: float) -> Group:
    """Cold: one right text, again and again. Warm: two right texts of which one has a wrong step, and two wrong ones. Hot: nothing right."""
    kinds = {
        0.5: [(1.2, "a", 1.0)] * 4,
        1.0: [(1.2, "a", 1.0), (0.8, "b", 1.0), (0.2, "c", 0.0), (-0.2, "d", 0.0)],
        2.0: [(-0.2, text, 0.0) for text in "abcd"],
    }
    return Group(task.id, [attempt(task, *kind) for kind in kinds[temperature]])


@pytest.mark.parametrize(
    ("maximise", "expected"),
    [
        # Of 3 wanted: cold 1/3 * 1; warm at 0.5 2/3 * 1, at 1 1/3 * 1, at 0 2/3 * 2/3.
        ("balance", (1.0, 0.5, 2 / 3)),
        ("quality", (1.0, 1.0, 1.0)),
        ("quantity", (1.0, 0.5, 2 / 3)),
    ],
)
def test_the_search_finds_many_and_good_examples(maximise: str, expected: tuple[float, float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = ready(tmp_path, temperatures=(0.5, 1.0, 2.0), thresholds=(0.0, 0.5, 1.0), wanted_per_task=3, maximise=maximise)

    def tried(tasks: Sequence[Task], round_: int = 0) -> list[Group]:
        return [drawn(task, method.params.temperature) for task in tasks]

    monkeypatch.setattr(method, "tried", tried)
    temperature, threshold, metrics = method.search()
    assert (temperature, threshold, metrics["balance/searched"]) == pytest.approx(expected)
    if maximise == "balance":
        assert {k: v for k, v in metrics.items() if "at_" in k} == pytest.approx({"balance/at_0.5": 1 / 3, "balance/at_1": 2 / 3, "balance/at_2": 0.0})


def test_a_round_samples_as_it_chose_and_the_search_is_paid_for(tmp_path: Path) -> None:
    method = ready(tmp_path, temperatures=(0.5, 1.5), thresholds=(0.0, 0.9))
    assert (method.config.round.start_from, method.learner.temperature) == ("going-on", 1.0)
    tasks = method.round_tasks()
    assert not {t.id for t in tasks} & {t.id for t in method.searched}
    examples, metrics = method.examples(tasks)
    assert method.run.ledger.rollouts == 2 * 2 * 4 + 4 * 4
    assert method.params.temperature == metrics["balance/temperature"]
    assert all(e.reward > metrics["balance/threshold"] for e in examples)
    assert metrics["balance/kept"] == len(examples) / 4
    assert {round(t.rewards["correct"] + 0.2 * t.rewards["process"] - t.reward, 9) for t in examples} == {0.0}
    again = ready(tmp_path, temperatures=(0.5, 1.5), thresholds=(0.0, 0.9))
    assert [e.text for e in again.examples(again.round_tasks())[0]] == [e.text for e in examples]


def test_what_can_be_switched_off(tmp_path: Path) -> None:
    fixed = ready(tmp_path, temperatures=(1.0,), thresholds=(-1.0,), process="none", right_only=True, with_references=True)
    assert (fixed.search(), fixed.run.ledger.rollouts) == ((1.0, -1.0, {}), 0)
    examples, metrics = fixed.examples(fixed.round_tasks())
    assert "process" not in examples[0].rewards
    assert {e.correct for e in examples} == {1.0}
    # Every task has at least its demonstration.
    assert len({e.task.id for e in examples}) == 4
    assert metrics["balance/quality"] == 1.0
    assert ready(tmp_path, tasks="arithmetic").process is None
    evaluation = fixed.evaluation()
    assert 0 < evaluation.metrics["eval/distinct"] <= 1
    with pytest.raises(InputError, match="but B-STaR chooses it"):
        ready(tmp_path, temperature=0.7)
    with pytest.raises(InputError, match="--thresholds is empty"):
        ready(tmp_path, thresholds=())


def test_a_judge_scores_steps_and_comes_back_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**SMALL, "process": "judge", "judge": "average", "judge_tokens": 4, "temperatures": (1.0,), "thresholds": (-1.0,), "steps_per_round": 1}
    settings |= {"tasks_per_round": 2, "warmup_steps": 0, "evaluate_every": 0, "checkpoint_every": 1, "quiet": True, "threads": 1}
    etude.train("b-star", out="parted", steps=1, **settings)
    etude.train(resume="parted", steps=2)
    etude.train("b-star", out="whole", steps=2, **settings)
    parted, whole = (Run.open(name).checkpoints.load(2).state().tensors for name in ("parted", "whole"))
    judges = [name for name in whole if name.startswith("judge.")]
    assert judges
    assert all((parted[name] == whole[name]).all() for name in judges)
    ledger = Run.open("whole").metrics()[-1]["ledger"]
    assert 0 < ledger["model_calls"]["judge"] <= 2 * 2 * 4
