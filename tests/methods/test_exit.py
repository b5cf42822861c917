"""ExIt: starts that grow, single steps from the newest attempt, their returns, the diversity bonus, the moving reference, and chains at test time."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.config import RunConfig
from etude.errors import InputError
from etude.memory import History
from etude.memory.self_growing import QUALITY
from etude.method import get_method
from etude.methods.self_correction.exit import BEFORE, embedding, step_metrics
from etude.models.language import LanguageModel
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.check_and_fix import CheckAndFix
from etude.types import Segment, Trajectory, trajectories_of

SMALL: dict[str, Any] = {
    "tasks_per_step": 4,
    "group_size": 4,
    "eval_tasks": 3,
    "eval_samples": 2,
    "warmup_steps": 0,
    "eval_kl": False,
    "max_new_tokens": 8,
}
SHORT: dict[str, Any] = {"improve_request": "short", "diverge_request": "short"}
GROWING: dict[str, Any] = {"start_share": 1.0, "buffer_minimum": 1, "prefix": "whole"}


class Graded(Arithmetic):
    """Arithmetic in which a text is as good as its hash says, so that attempts differ."""

    def verify(self, task: Any, text: str) -> dict[str, float]:
        return {"correct": zlib.crc32(text.encode()) % 100 / 100}


def ready(tmp_path: Path, tasks: TaskSet | None = None, slug: str = "exit", **settings: Any) -> Any:
    config = build_config(slug, **{**SMALL, **(SHORT if slug == "exit" else {}), **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=0))
    method_class: Any = get_method(slug)
    method = method_class(config, run, policy=LanguageModel.load("tiny", device="cpu"), task_set=tasks or Graded())
    method.setup()
    run.step = 1
    return method


def test_steps_begin_from_what_was_written_before_and_learn_nothing_of_it(tmp_path: Path) -> None:
    method = ready(tmp_path, step_return="improvement", diverge_share=0.0, **GROWING)
    policy, depths = method.policy, []
    for method.run.step in range(1, 7):
        groups = method.collect(method.curriculum.next(4))
        for group in groups:
            task, start = group.trajectories[0].task, method.curriculum.start_of(group.trajectories[0].task)
            depths.append(start.history.depth)
            for attempt in group.trajectories:
                assert attempt.tags[QUALITY] == Graded().verify(task, attempt.text)["correct"]
                assert [s.trained for s in attempt.segments] == [True]
                if start.mode is None:
                    assert attempt.prompt == policy.render(task.messages)
                    assert attempt.reward == attempt.tags[QUALITY]
                else:
                    # The task, the newest attempt alone and the request, however long the history is.
                    assert [m.content for m in task.opening] == [task.prompt, start.history.attempts[-1], "check and fix"]
                    assert attempt.prompt == policy.render(task.opening)
                    assert attempt.rewards[BEFORE] == start.history.qualities[-1]
                    assert attempt.reward == pytest.approx(max(0.0, attempt.tags[QUALITY] - attempt.rewards[BEFORE]))
        method.remember(groups)
    assert depths[:4] == [0, 0, 0, 0]
    assert max(depths) >= 2, "no episode is longer than one step, and yet starts are"


def test_without_its_parts_it_is_grpo_attempt_for_attempt(tmp_path: Path) -> None:
    weights, texts = [], []
    alone: dict[str, dict[str, Any]] = {"exit": {"start_share": 0.0, "kl_coefficient": 0.0}, "grpo": {}}
    for slug, settings in alone.items():
        method = ready(tmp_path / slug, slug=slug, **settings)
        groups = method.collect(method.curriculum.next(4))
        method.credit(groups)
        method.update(groups)
        texts.append([t.text for t in trajectories_of(groups)])
        weights.append([p.detach().clone() for p in method.policy.model.parameters()])
    assert texts[0] == texts[1]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_attempts_unlike_their_group_earn_more(tmp_path: Path) -> None:
    method = ready(tmp_path, diversity=True, diversity_positive_only=True)
    task = method.task_set.train_task(0, 0)
    texts, rewards = ["aaaa", "aaaa", "zzzzzzz", "aaaa"], [1.0, 0.0, 1.0, 0.0]
    group = method.rollout([task])[0]
    for attempt, text, reward in zip(group.trajectories, texts, rewards, strict=True):
        attempt.segments = [Segment([5], "policy", text, trained=True, logprobs=[-1.0], entropies=[1.0])]
        attempt.reward, attempt.tags[QUALITY] = reward, reward
    method.counted = {}
    method.credit([group])
    # Two of four are right: (1 - 1/2) / sqrt(1/3). The usual right text lies nearest the middle and earns nothing; the wrong ones lose what they would have lost.
    size = 0.5 / math.sqrt(1 / 3)
    assert [t.segments[0].advantages[0] for t in group.trajectories] == pytest.approx([0.0, -size, size, -size], abs=1e-4)


def test_the_reference_follows_slowly(tmp_path: Path) -> None:
    method = ready(tmp_path, reference_every=2, reference_keep=0.6, lr=1e-2)
    name, parameter = next(iter(method.policy.model.named_parameters()))
    start = parameter.detach().clone()
    for method.run.step in (1, 2):
        assert torch.equal(method.learner.state()[1][f"reference.{name}"], start)
        groups = method.collect(method.curriculum.next(4))
        method.credit(groups)
        method.update(groups)
    assert not torch.equal(parameter, start)
    torch.testing.assert_close(method.learner.state()[1][f"reference.{name}"], 0.6 * start + 0.4 * parameter.detach())


def test_an_evaluation_goes_on_improving_from_held_out_attempts(tmp_path: Path) -> None:
    method = ready(tmp_path, improve_steps=3, improve_chains=2, max_new_tokens=4)
    evaluation = method.evaluation()
    rows = [[t.correct for t in row] for row in evaluation.trajectories]
    assert evaluation.metrics["eval/correct_after@0"] == pytest.approx(sum(map(sum, rows)) / 6)
    assert {name for name in evaluation.metrics if "correct_after" in name} == {f"eval/correct_after@{k}" for k in range(4)}
    assert method.run.ledger.rollouts == 6 * (1 + 3)
    assert evaluation.metrics == method.evaluation().metrics


def test_how_steps_went_is_counted_by_where_they_began() -> None:
    task = Graded().train_task(0, 0)
    pairs = [(None, 1.0), (0.5, 0.75), (0.5, 1.0), (1.0, 1.0), (1.0, 0.0), (0.5, math.nan)]
    attempts = [Trajectory(task, [], [], "eos", rewards={} if before is None else {BEFORE: before}, tags={QUALITY: now}) for before, now in pairs]
    assert step_metrics(attempts) == {"step/better": 0.5, "step/broken": 0.5, "step/fixed": 0.5}
    assert step_metrics(attempts[:1]) == {}


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lower number first"):
        ready(tmp_path, quality_range=(1.0, 1.0))
    with pytest.raises(InputError, match="do not fit"):
        ready(tmp_path, max_new_tokens=125)
    with pytest.raises(InputError, match="single turns"):
        ready(tmp_path, CheckAndFix())
    (tmp_path / "mine.py").write_text("def words(text):\n    return text.split()\n")
    with pytest.raises(InputError, match="no list of numbers"):
        embedding(f"{tmp_path / 'mine.py'}:words")("two words")
    assert ready(tmp_path).begin(History(Graded().train_task(0, 0), ("x",), (0.0,)), "diverge").opening[-1].content == "unique"
