"""rStar2: what it learns from, its stages, its switches."""

from __future__ import annotations

import json
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
from etude.types import Group, Message, Segment, Task, Trajectory

SMALL: dict[str, Any] = {"tasks_per_step": 2, "group_size": 4, "eval_tasks": 4, "eval_samples": 1, "eval_kl": False, "max_new_tokens": 12}


def ready(tmp_path: Path, **settings: Any) -> Any:
    config = build_config("rstar2", **{**SMALL, **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=0))
    method: Any = get_method("rstar2")(config, run, policy=LanguageModel.load("tiny", device="cpu"), task_set=builtin_task_sets()["calculator"]())
    method.setup()
    run.step = 1
    return method


def attempt(reward: float, calls: int = 0, errors: int = 0, *, turns: tuple[str, ...] = ("answer: 1",)) -> Trajectory:
    segments = [Segment([5, 6], "policy", text, trained=True, logprobs=[-1.0] * 2, entropies=[0.5] * 2) for text in turns]
    tags = {"tool_calls": calls, "tool_errors": errors} if calls else {}
    return Trajectory(Task("t", (Message("user", "?"),)), [1], segments, "environment", reward=reward, rewards={"correct": reward}, tags=tags)


def mixed() -> Group:
    """Right attempts with penalties 0.5 (no call), 0.5, 0, 1 (no answer), and four wrong ones."""
    right = [attempt(1.0), attempt(1.0, 2, 1), attempt(1.0, 2, 0), attempt(1.0, 2, 0, turns=("well",))]
    return Group("t", [*right, *(attempt(0.0, 1, 1) for _ in range(4))])


def places(method: Any, group: Group) -> list[int]:
    return [next(i for i, t in enumerate(group.trajectories) if t is kept) for kept in method.kept(group, 0)]


def test_twice_as_many_attempts_are_made_as_are_learnt_from(tmp_path: Path) -> None:
    method = ready(tmp_path)
    groups = method.collect(method.curriculum.next(2))
    assert [len(g) for g in groups] == [8, 8]
    assert method.run.ledger.rollouts == 16
    chosen = method.select(groups)
    assert {len(g) for g in chosen} <= {4}
    assert len(chosen) == sum(g.has_spread for g in groups)


def test_clean_right_attempts_stay_with_as_many_wrong_ones(tmp_path: Path) -> None:
    method, group = ready(tmp_path), mixed()
    assert [method.penalty(t) for t in group.trajectories[:4]] == [0.5, 0.5, 0.0, 1.0]
    kept = places(method, group)
    assert kept[:2] == [0, 2]
    assert all(place >= 4 for place in kept[2:])
    metrics = method.credit(method.select([group]))
    assert (metrics["signal/groups_trained"], metrics["signal/penalty_trained"]) == (1.0, 0.25)
    # Two right, two wrong of those kept: mean 1/2, unbiased deviation 1/sqrt(3).
    advantages = [t.segments[0].advantages[0] for t in method.kept(group, 0)]
    assert advantages == pytest.approx([0.8660, 0.8660, -0.8660, -0.8660], abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "penalties"),
    [
        ({"tool_free_penalty": 0.0}, [0.0, 0.5, 0.0, 1.0]),
        ({"error_penalty": False}, [0.5, 0.0, 0.0, 1.0]),
        ({"form_penalty": False}, [0.5, 0.5, 0.0, 0.0]),
    ],
)
def test_each_part_of_the_penalty_can_be_left_out(tmp_path: Path, settings: dict[str, Any], penalties: list[float]) -> None:
    method = ready(tmp_path, **settings)
    assert [method.penalty(t) for t in mixed().trajectories[:4]] == penalties


def test_the_controls_keep_whatever_comes_or_everything(tmp_path: Path) -> None:
    group = mixed()
    assert places(ready(tmp_path, downsample="none"), group) == list(range(8))
    method = ready(tmp_path, downsample="random")
    drawn = set()
    for step in range(1, 40):
        method.run.step = step
        drawn.add(tuple(places(method, group)))
    assert len(drawn) > 20
    assert any(sum(place < 4 for place in kept) != 2 for kept in drawn)
    alike = Group("t", [attempt(1.0, 1, 0) for _ in range(8)])
    assert len(method.select([alike])[0]) == 4
    assert ready(tmp_path).select([alike]) == []


def test_floors_keep_the_only_right_attempt_and_drawing_by_weight_may_keep_a_flawed_one(tmp_path: Path) -> None:
    lonely = Group("t", [*(attempt(0.0, 1) for _ in range(7)), attempt(1.0, 1, 1)])
    assert 7 in places(ready(tmp_path, min_positives=1), lonely)
    method = ready(tmp_path, prefer="weighted")
    seen = set()
    for step in range(1, 60):
        method.run.step = step
        seen |= {place for place in places(method, mixed()) if place < 4}
    assert seen == {0, 1, 2, 3}


def test_stages_set_the_limit_and_the_last_leaves_out_what_is_solved(tmp_path: Path) -> None:
    rows = [{"prompt": f"compute {a}+{b}", "answer": str(a + b)} for a in range(2, 6) for b in range(2, 6)]
    (tmp_path / "easy.jsonl").write_text("".join(json.dumps({**row, "split": "train"}) + "\n" for row in rows[:12]))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[12:]))
    settings = {
        **SMALL,
        "tasks": f"{tmp_path / 'easy.jsonl'},{tmp_path / 'test.jsonl'}",
        "out": tmp_path / "run",
        "steps": 3,
        "stage_steps": (1, 2),
        "stage_tokens": (2, 5, 0),
        "hard_stage": 3,
        "quiet": True,
        "threads": 1,
        "checkpoint_every": 1,
    }
    etude.train("rstar2", **settings)
    lines = [line for line in Run.open(tmp_path / "run").metrics() if "stage" in line]
    assert [line["stage"] for line in lines] == [1.0, 2.0, 3.0]
    lengths = [line["rollout/length"] for line in lines]
    assert lengths[0] <= 2 < lengths[1] <= 5 < lengths[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage_steps": (5, 5)}, "--stage-steps is 5 5; expected rising numbers"),
        ({"stage_steps": (5,), "stage_tokens": (8, 12, 12)}, "--stage-tokens gives 3 limits for 2 stages"),
        ({"hard_stage": 3}, "--hard-stage is 3, but there are 1 stages"),
        ({"group_size": 1}, "group_size is 1; expected a whole number, 2 or more"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ready(tmp_path, **settings)
