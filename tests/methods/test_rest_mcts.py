"""ReST-MCTS*: what is imitated, what the value model is taught by, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etude.config import RunConfig
from etude.errors import InputError
from etude.evals.soundness import audited
from etude.method import get_method
from etude.methods.search.rest_mcts import VALUE
from etude.models.language import LanguageModel
from etude.run import Run
from etude.search.value_targets import merged
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.loading import load_tasks
from etude.types import Group, Segment, Task, Trajectory

SMALL: dict[str, Any] = {
    "tasks_per_round": 3,
    "group_size": 2,
    "eval_tasks": 2,
    "eval_samples": 1,
    "eval_kl": False,
    "search_tokens": 40,
    "max_new_tokens": 12,
    "step_retries": 0,
}
POLICY = LanguageModel.load("tiny", device="cpu")


def ready(folder: Path, tasks: str | TaskSet = "register-chain", **settings: Any) -> Any:
    config = build_config("rest-mcts", **{**SMALL, **settings})
    task_set = load_tasks(tasks) if isinstance(tasks, str) else tasks
    make: Any = get_method("rest-mcts")
    method = make(config, Run(folder, RunConfig(save_trajectories=4)), policy=POLICY, task_set=task_set)
    method.setup()
    method.run.step = method.round = 1
    return method


def solution(task: Task, text: str, reward: float, value: float) -> Trajectory:
    return Trajectory(task, [1], [Segment([2], "policy", text, trained=True)], "eos", rewards={"correct": reward}, reward=reward, tags={VALUE: value})


def test_the_right_solution_with_the_highest_value_is_imitated_and_audited(tmp_path: Path) -> None:
    method = ready(tmp_path)
    task = method.task_set.train_task(0, 0)
    sound = method.task_set.demonstration(task, 0)
    lucky = f"answer: {task.answer}"
    attempts = [solution(task, lucky, 1.0, 0.3), solution(task, sound, 1.0, 0.7), solution(task, "answer: x", 0.0, 0.9)]
    kept = method.kept([Group(task.id, attempts)])
    assert [t.last_text for t in kept] == [sound]
    assert kept[0].tags["origin"] == {"reward": 1.0, "value": 0.7}
    assert audited(method.task_set, kept) == {"round/flawed": 0.0}
    both = ready(tmp_path / "both", keep_per_task=0).kept([Group(task.id, attempts)])
    assert [t.last_text for t in both] == [sound, lucky]
    assert audited(method.task_set, both) == {"round/flawed": 0.5}
    assert ready(tmp_path / "high", keep_value=0.8).kept([Group(task.id, attempts)]) == []


def test_a_round_grows_trees_that_the_value_model_learns_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = ready(tmp_path, value_seed="demonstrations", value_lr=1e-3, keep_value=0.0)
    # Whatever ends is right, so that there is something to learn.
    monkeypatch.setattr(method.task_set, "verify", lambda task, text: {"correct": 1.0, "format": 1.0})
    examples, metrics = method.examples(method.round_tasks())
    ledger = method.run.ledger
    # Ten steps, the answer and the question, of three demonstrations; and beside each step, behind all that comes before it, the two that an untaught policy would have
    # written there.
    beside = sum(range(2, 13))
    assert 3 * 12 + 3 * beside < metrics["seed/samples"] <= 3 * 12 + 2 * 3 * beside
    assert metrics["round/tasks_kept"] == len(examples) > 0
    assert metrics["value/samples"] > len(examples)
    # What the value model read is judged tokens; every step that was written is one call and has one value, but for equal ones.
    assert 0 < ledger.model_calls["value"] <= ledger.model_calls["policy"]
    assert ledger.judged_tokens > ledger.generated_tokens > 0
    assert all(len(tree) > 1 for tree, _ in method.trees)
    assert "first" in next(iter(method.run.trees_log))["view"]
    # Steps that come after right ones alone are looked at, at whatever depth.
    assert {depth for depth, _, _ in method.steps} >= {1}
    assert any(not right for _, right, _ in method.steps)


def test_ways_that_were_learnt_are_learnt_again_beside_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {}
    for replay in (0.0, 0.5):
        method = ready(tmp_path / str(replay), value_seed="none", value_replay=replay)
        read = list[int]()
        monkeypatch.setattr(method.value, "fit", lambda ways, random, read=read: read.append(len(ways)) or {})
        for _ in range(2):
            task = method.task_set.train_task(0, 0)
            tree, ends = merged([1], [[[2], [3]], [[2], [4]], [[5]], [[6]]])
            method.trees = [(tree, ends)]
            method.learn_values([Group(task.id, [solution(task, "x", float(i == 0), 0.5) for i in range(4)])], "values")
        counts[replay] = read
        assert len(method.learnt) == 8
    assert counts == {0.0: [4, 4], 0.5: [4, 6]}


def test_plain_attempts_take_the_place_of_demonstrations_and_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = ready(tmp_path, gather="samples", targets="trace", keep_value=0.0)
    monkeypatch.setattr(method.task_set, "verify", lambda task, text: {"correct": 1.0, "format": 1.0})
    examples, metrics = method.examples(method.round_tasks())
    # Two attempts at each of three tasks for the value model, and again for the round; the value model reads those of the round alone.
    assert (method.run.ledger.rollouts, method.run.ledger.model_calls["value"]) == (12, 6)
    assert len(examples) == 3
    assert metrics["seed/samples"] >= 3 * 2


def test_input_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    bare = load_tasks("register-chain")
    bare.demonstration = lambda task, seed: None
    with pytest.raises(InputError, match="--value-seed demonstrations"):
        ready(tmp_path, bare, value_seed="demonstrations")
    with pytest.raises(InputError, match="--critic asks in words"):
        ready(tmp_path, critic="simple")
    with pytest.raises(InputError, match="--delimiter is empty"):
        ready(tmp_path, delimiter="")
    with pytest.raises(InputError, match="played in turns"):
        ready(tmp_path, "calculator")
