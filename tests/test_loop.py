"""The one loop: what it measures, what it draws, what it refuses before anything is computed, and what it saves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.config import RunConfig
from etude.errors import InputError
from etude.loop import rollout_metrics
from etude.method import get_method
from etude.models.language import LanguageModel
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin import builtin_task_sets
from etude.types import Group, Message, Segment, Task, Trajectory

SMALL: dict[str, Any] = {"tasks_per_step": 2, "group_size": 3, "max_new_tokens": 5, "eval_tasks": 3, "eval_samples": 2, "warmup_steps": 0}


class Lengths(TaskSet):
    """Paid by the number of characters, so that attempts differ."""

    name = "lengths"
    value: float | None = None

    def train_task(self, seed: int, index: int) -> Task:
        return Task(f"l{index}", (Message("user", f"count {index}"),))

    def held_out(self) -> Sequence[Task]:
        return [Task(f"h{i}", (Message("user", f"count {i}"),)) for i in range(9)]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": sum(map(ord, text)) % 7 / 6 if self.value is None else self.value}


def ready(tmp_path: Path, tasks: TaskSet | None = None, slug: str = "grpo", *, kept: int = 0, **settings: Any) -> Any:
    config = build_config(slug, **{**SMALL, **settings})
    method: Any = get_method(slug)(config, Run(tmp_path, RunConfig(save_trajectories=kept)), task_set=tasks or Lengths())
    method.setup()
    method.run.step = 1
    return method


def attempt(reward: float, *, length: int = 2, stop: Any = "eos", **rewards: float) -> Trajectory:
    segment = Segment([5] * length, "policy", trained=True, logprobs=[-1.0] * length, entropies=[float(length)] * length)
    return Trajectory(Task("t", (Message("user", "x"),)), [1], [segment], stop, reward=reward, rewards=rewards)


def test_a_step_learns_from_tasks_in_the_order_of_the_stream(tmp_path: Path) -> None:
    method = ready(tmp_path, kept=3)
    before = [p.clone() for p in method.policy.model.parameters()]
    metrics = method.step()
    assert all(math.isfinite(v) for v in metrics.values())
    assert {"reward/mean", "reward/correct", "loss/total", "loss/grad_norm", "signal/degenerate", "rollout/length", "time/rollout"} <= set(metrics)
    assert not all(torch.equal(a, b) for a, b in zip(before, method.policy.model.parameters(), strict=True))
    ledger = method.run.ledger
    assert (ledger.rollouts, method.curriculum.cursor, method.policy.sampler.version) == (6, 2, 1)
    assert ledger.forward_equivalents == ledger.generated_tokens + ledger.prompt_tokens + 3 * ledger.trained_tokens
    records = list(method.run.trajectories_log)
    assert [(r["step"], r["task_id"], r["sample"]) for r in records] == [(1, "l0", 0), (1, "l0", 2), (1, "l1", 1)]


def test_rollouts_depend_on_the_seed_the_step_and_the_round(tmp_path: Path) -> None:
    method = ready(tmp_path)
    tasks = method.curriculum.next(2)

    def texts(**options: Any) -> list[list[int]]:
        return [t.tokens for g in method.rollout(tasks, **options) for t in g.trajectories]

    first = texts()
    assert texts() == first
    assert texts(round_=1) != first
    method.run.step = 2
    assert texts() != first
    method.run.step, method.run.seed = 1, 5
    assert texts() != first


def test_measurements_of_rollouts() -> None:
    groups = [
        Group("a", [attempt(1.0, correct=1.0, format=0.5), attempt(0.0, length=4, stop="length", correct=0.0, format=math.nan)]),
        Group("b", [attempt(0.5, correct=0.5), attempt(math.nan, correct=math.nan)]),
    ]
    metrics = rollout_metrics(groups)
    assert metrics == pytest.approx(
        {
            "reward/mean": 0.5,
            "reward/std": math.sqrt(1 / 6),
            "reward/correct": 0.5,
            "reward/format": 0.5,
            "signal/groups_with_spread": 0.5,
            "rollout/length": 2.5,
            # Three attempts of two tokens with 2 nats each, and one of four tokens with 4.
            "rollout/entropy": (6 * 2 + 4 * 4) / 10,
            "rollout/truncated": 0.25,
        }
    )
    turns = attempt(1.0)
    turns.segments += [Segment([1], "tool"), *attempt(1.0).segments]
    assert rollout_metrics([Group("c", [turns, attempt(1.0)])])["rollout/turns"] == 1.5
    assert math.isnan(rollout_metrics([])["reward/mean"])


def test_evaluation_changes_nothing_and_repeats(tmp_path: Path) -> None:
    method = ready(tmp_path)
    state = method.state()
    first, second = method.evaluate(), method.evaluate()
    assert first == pytest.approx(second, nan_ok=True)
    assert first["eval/tasks"] == 3
    assert first["eval/kl_to_start"] == pytest.approx(0.0, abs=1e-6)
    after = method.state()
    assert after.plain == state.plain
    assert all(torch.equal(after.tensors[n], t) for n, t in state.tensors.items())
    method.step()
    assert method.evaluate()["eval/kl_to_start"] > 0


def test_a_state_goes_into_another_process_of_the_same_run(tmp_path: Path) -> None:
    one, other = ready(tmp_path), ready(tmp_path)
    one.step()
    other.load_state(one.state())
    assert (other.curriculum.cursor, other.policy.sampler.version) == (2, 1)
    one.run.step = other.run.step = 2
    numbers = [{k: v for k, v in m.step().items() if not k.startswith("time/")} for m in (one, other)]
    assert numbers[0] == numbers[1]


def test_turns_are_limited_by_the_task_set_and_by_the_options(tmp_path: Path) -> None:
    family = builtin_task_sets()["calculator"]
    assert ready(tmp_path, family()).max_turns == 4
    assert ready(tmp_path, family(), max_turns=2).max_turns == 2
    assert ready(tmp_path, family(), max_turns=20).max_turns == 4


def test_tool_words_are_recorded_but_not_trained(tmp_path: Path) -> None:
    method = ready(tmp_path, builtin_task_sets()["check-and-fix"]())
    groups = method.collect(method.curriculum.next(2))
    for trajectory in (t for g in groups for t in g.trajectories):
        assert [s.author for s in trajectory.segments] == ["policy", "environment", "policy"]
        assert [s.trained for s in trajectory.segments] == [True, False, True]
    method.credit(groups)
    method.update(groups)
    assert method.run.ledger.trained_tokens == method.run.ledger.generated_tokens


@pytest.mark.parametrize(
    ("slug", "settings", "said"),
    [
        (
            "grpo",
            {"group_size": 1},
            "--group-size is 1; GRPO compares attempts at the same task and expects at least 2; reinforce-pp works with single attempts",
        ),
        ("dpo", {"group_size": 1}, "--group-size is 1; DPO compares"),
        ("grpo", {"temperature": 0.0}, "--temperature is 0.0; rollouts to learn from have to differ"),
    ],
)
def test_settings_that_cannot_teach_are_refused(slug: str, settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ready(tmp_path, slug=slug, **settings)
    assert said in str(caught.value)


def test_a_long_prompt_is_found_before_the_run(tmp_path: Path) -> None:
    class Long(Lengths):
        def train_task(self, seed: int, index: int) -> Task:
            return Task(f"l{index}", (Message("user", "z" * (5000 if index == 40 else 5)),))

    with pytest.raises(InputError, match=r"the prompt of task 'l40' has \d+ tokens, but tiny reads \d+ in all"):
        ready(tmp_path, Long())


def test_a_task_set_without_held_out_tasks_is_refused(tmp_path: Path) -> None:
    class Trained(Lengths):
        def held_out(self) -> Sequence[Task]:
            return []

    with pytest.raises(InputError, match="the task set lengths has no held-out tasks"):
        ready(tmp_path, Trained())


def test_rewards_that_are_not_finite_change_no_weight(tmp_path: Path) -> None:
    tasks = Lengths()
    method = ready(tmp_path, tasks, slug="reinforce-pp")
    before = [p.clone() for p in method.policy.model.parameters()]
    tasks.value = math.inf
    with pytest.raises(InputError, match=r"lengths judged an attempt at task 'l\d+' with correct = inf; expected a finite number, or NaN"):
        method.step()
    assert all(torch.equal(a, b) for a, b in zip(before, method.policy.model.parameters(), strict=True))


def test_attempts_that_cannot_be_judged_teach_nothing(tmp_path: Path) -> None:
    tasks = Lengths()
    method = ready(tmp_path, tasks)
    before = [p.clone() for p in method.policy.model.parameters()]
    tasks.value = math.nan
    metrics = method.step()
    assert math.isnan(metrics["reward/mean"])
    assert metrics["signal/degenerate"] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, method.policy.model.parameters(), strict=True))


def test_a_policy_may_be_handed_in(tmp_path: Path) -> None:
    policy = LanguageModel.load("tiny", device="cpu")
    config = build_config("grpo", model="./absent", **SMALL)
    method: Any = get_method("grpo")(config, Run(tmp_path, RunConfig()), policy=policy, task_set=Lengths())
    method.setup()
    assert method.policy is policy
    assert method.learner.lr == policy.recommended_lr
