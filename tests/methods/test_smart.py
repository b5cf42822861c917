"""SMART: late successes become first choices; what is learnt, and under what."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.config import RunConfig
from etude.errors import InputError
from etude.method import get_method
from etude.models.language import LanguageModel
from etude.rollouts.openings import OPENING, TRY
from etude.run import Run
from etude.settings import build_config
from etude.types import Segment, Trajectory

SMALL: dict[str, Any] = {
    **{
        "tasks": "arithmetic",
        "strategies": "short",
        "max_new_tokens": 12,
        "tasks_per_round": 12,
        "tasks_per_step": 12,
        "steps_per_round": 4,
        "warmup_steps": 0,
    },
    **{"eval_tasks": 4, "eval_samples": 1, "eval_kl": False, "evaluate_every": 0, "checkpoint_every": 0, "save_trajectories": 0, "quiet": True, "threads": 1},
}
REWARD = "def steps_only(task, text):\n    return float(text.startswith('l2m: '))\n"


def ready(tmp_path: Path, **settings: Any) -> Any:
    options = {k: v for k, v in {**SMALL, "tasks": "strategies", **settings}.items()}
    config = build_config("smart", **options)
    smart_class: Any = get_method("smart")
    method = smart_class(config, Run(tmp_path, RunConfig(save_trajectories=0)), policy=LanguageModel.load("tiny", device="cpu"))
    method.setup()
    method.run.step = method.round = 1
    return method


def test_the_strategy_that_works_late_becomes_the_first_choice(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(REWARD)
    after: dict[str, float] = {}
    for under in ("root", "history"):
        run = {**SMALL, "reward": f"{tmp_path / 'reward.py'}:steps_only", "bootstrap": 0, "lr": 1e-3, "rounds": 1, "steps": 4, "learn_under": under}
        after[under] = etude.train("smart", out=tmp_path / under, **run).after["eval/tag_l2m"]
    assert Run.open(tmp_path / "root").metrics()[0]["eval/tag_l2m"] < 0.5
    assert after["root"] > 0.9
    # Learnt where it happened, it is a habit of second tries; first ones learn from first ones alone.
    assert after["history"] < after["root"]


def attempts(method: Any) -> list[Trajectory]:
    """Task 0 fails with cot and succeeds with pot; task 1 succeeds at once, with direct and with cot."""
    made: list[Trajectory] = []
    for place, opening, turn, reward in ((0, 1, 0, 0.0), (0, 3, 1, 1.0), (1, 0, 0, 1.0), (1, 1, 0, 1.0)):
        task = method.task_set.train_task(0, place)
        prompt = [*method.policy.render(task.messages), *[9] * turn]
        tokens = [*method.openings.tokens[opening], 56, 1]
        segment = Segment(tokens, "policy", method.policy.decode(tokens), trained=True)
        made.append(Trajectory(task, prompt, [segment], "eos", reward=reward, tags={OPENING: opening, TRY: turn}))
    return made


def learnt(method: Any) -> list[tuple[str, int, bool]]:
    """Of each example the tag that it is learnt with, its task, and whether it stands under the bare task."""
    kept = method.kept(attempts(method))
    assert all(s.trained and s.advantages == [1.0] * len(s.tokens) for e in kept for s in e.segments)
    place = {method.task_set.train_task(0, i).id: i for i in range(2)}
    return [(e.segments[0].text.partition(":")[0], place[e.task.id], e.prompt == method.policy.render(e.task.messages)) for e in kept]


def test_what_is_learnt_and_under_what(tmp_path: Path) -> None:
    assert learnt(ready(tmp_path, one_target=False)) == [("pot", 0, True), ("direct", 1, True), ("cot", 1, True)]
    late, other = learnt(ready(tmp_path))
    assert late == ("pot", 0, True)
    assert other in {("direct", 1, True), ("cot", 1, True)}
    assert learnt(ready(tmp_path, one_target=False, learn_under="history"))[0] == ("pot", 0, False)
    assert learnt(ready(tmp_path, one_target=False, learn_under="both"))[:2] == [("pot", 0, True), ("pot", 0, False)]
    shuffled = learnt(ready(tmp_path, one_target=False, shuffle_tags=True))
    assert Counter(tag for tag, *_ in shuffled) == Counter(["pot", "direct", "cot"])


def test_the_first_round_tries_everything_and_goes_on_until_its_tokens_are_spent(tmp_path: Path) -> None:
    method = ready(tmp_path, bootstrap=2, round_tokens=200, tasks_per_round=2)
    tasks = method.round_tasks()
    _, metrics = method.examples(tasks)
    # Two tasks in four strategies twice are 16 attempts of 5 to 12 tokens, with the tags: one lot is not enough, three are.
    assert metrics["round/attempts_per_task"] == 8
    assert metrics["round/tasks_tried"] in {4, 6}
    assert method.run.ledger.generated_tokens >= 200
    # The next tasks are new ones.
    assert not {t.id for t in method.round_tasks()} & {method.task_set.train_task(0, i).id for i in range(int(metrics["round/tasks_tried"]))}
    method = ready(tmp_path, use=["pot"], bootstrap=0)
    groups = method.tried_in_turn(tasks, 0)
    assert [[t.tags[OPENING] for t in g.trajectories] for g in groups] == [[0]] * 2
    assert all(t.last_text.startswith("pot: ") for g in groups for t in g.trajectories)


def test_settings_that_cannot_work_are_named(tmp_path: Path) -> None:
    for settings, wrong in (
        ({"use": ["poet"]}, "--use names 'poet'"),
        ({"max_new_tokens": 4}, "a tag alone has 8 tokens"),
        ({"env": "revise"}, "plays them in turns"),
        ({"env": "strategies:short", "strategies": "standard"}, "both name strategies"),
        ({"tasks": "calculator"}, "an environment of its own"),
    ):
        with pytest.raises(InputError, match=wrong):
            ready(tmp_path, **settings)
