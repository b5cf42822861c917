"""Agent-R: where bad episodes are cut, what is learnt of them, and what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from etude.config import RunConfig
from etude.curation import Turn
from etude.errors import InputError
from etude.method import get_method
from etude.methods.self_correction.agent_r import TURNS, last_with_room
from etude.models.language import LanguageModel
from etude.run import Run
from etude.settings import build_config
from etude.tasks.builtin.crafting import Crafting
from etude.tasks.loading import load_tasks
from etude.types import Group, Segment, Task, Trajectory

SMALL: dict[str, Any] = {
    "tasks_per_round": 2,
    "group_size": 2,
    "iterations": 2,
    "eval_tasks": 2,
    "eval_samples": 1,
    "eval_kl": False,
    "judge_tokens": 4,
    "max_turns": 4,
    "max_new_tokens": 5,
}
POLICY = LanguageModel.load("tiny", device="cpu")
WORLD = Crafting(partial=True)
TASK: Task = WORLD.train_task(0, 0)


def ready(folder: Path, tasks: str = "crafting:partial=true", **settings: Any) -> Any:
    config = build_config("agent-r", **{**SMALL, **settings})
    method: Any = get_method("agent-r")(config, Run(folder, RunConfig(save_trajectories=4)), policy=POLICY, task_set=load_tasks(tasks))
    method.setup()
    method.run.step = method.round = 1
    return method


def episode(turns: Sequence[str], reward: float, sample: int) -> Trajectory:
    """What the world says to some turns, as the search would give it."""
    environment = WORLD.environment()
    environment.reset(TASK)
    answered = [Turn(text, environment.step(text).messages) for text in turns]
    segments = [Segment([sample + 5], "policy", text, trained=True) for text in turns]
    return Trajectory(TASK, [1], segments, "environment", sample, {"correct": float(reward == 1)}, reward, {TURNS: answered})


def pair() -> tuple[Trajectory, Trajectory]:
    """A perfect episode; and one that has its first step, then makes the goal too early, again and again."""
    right = [m.content for m in WORLD.conversation(TASK, 0) if m.role == "assistant"]
    goal = f"make {TASK.answer}"
    return episode(right, 1.0, 0), episode([right[0], goal, *[goal] * 12], 0.2, 1)


@pytest.mark.parametrize(("cut", "read"), [("judge", 2), ("exact", 2), ("end", 14)])
def test_a_bad_episode_is_read_to_its_cut_and_the_way_back_is_learnt(cut: str, read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = ready(tmp_path, cut=cut)
    good, bad = pair()
    monkeypatch.setattr(method.step_judge, "first_bad", lambda walks, stream: [1] * len(walks))
    (example,), metrics = method.revisions([Group(TASK.id, [good, bad])])
    own = [s for s in example.segments if s.author == "injected"]
    assert [s.trained for s in own] == [False] * read + [True] * (len(own) - read)
    assert [s.text for s in own[:read]] == [s.text for s in bad.segments[:read]]
    assert own[read].text in method.reflections
    assert [s.text for s in own[read + 1 :]] == [s.text for s in good.segments[1:]]
    assert all(s.advantages == [1.0] * len(s.tokens) for s in own[read:])
    assert metrics["cut/turns"] == read
    if cut == "judge":
        assert metrics["judge/precision"] == metrics["judge/found"] == 1.0


def test_only_what_can_be_carried_out_and_succeeds_passes_the_check(tmp_path: Path) -> None:
    good, bad = pair()
    short, long = (ready(tmp_path, cut=cut, replay_check=True, max_turns=32) for cut in ("exact", "end"))
    (example,), metrics = short.revisions([Group(TASK.id, [good, bad])])
    assert (metrics["cut/dropped"], short.run.ledger.environment_steps) == (0.0, 2 + 1 + len(good.segments) - 1)
    # The last turn of a whole failed episode is the last that there is, so that the revision comes as late as leaves room for the rest.
    (late,), metrics = long.revisions([Group(TASK.id, [good, bad])])
    room = WORLD.max_turns - 1 - (len(good.segments) - 1)
    assert (metrics["cut/dropped"], metrics["cut/turns"], late.tags["origin"]["read"]) == (0.0, room, room)
    assert 2 < room < len(bad.segments)
    assert example.tags["origin"] == {"kind": "revision", "read": 2, "value": 1.0}


def test_how_late_a_revision_still_leaves_room() -> None:
    good, bad = [Turn(text, ()) for text in "abcd"], [Turn(text, ()) for text in "axyzw"]
    # Behind the first turn three are left of the good one; behind more of the bad one three too.
    assert [last_with_room(bad, good, turns) for turns in (3, 4, 6, 20)] == [0, 1, 3, 5]


def test_thresholds_rise_and_pairs_are_capped(tmp_path: Path) -> None:
    method = ready(tmp_path, cut="random", revisions_per_task=3, good_above=(0.5, 0.7))
    good, bad = pair()
    group = Group(TASK.id, [good, *[bad] * 5])
    assert len(method.revisions([group])[0]) == 3
    seen = []
    for method.round in (1, 2, 3):
        seen.append(method.threshold)
    assert seen == [0.5, 0.7, 0.7]


def test_a_round_searches_and_mixes_in_general_examples(tmp_path: Path) -> None:
    method = ready(tmp_path, general_tasks="arithmetic", agent_share=0.5, good_above=(-0.1,), learn="good")
    examples, metrics = method.examples(method.round_tasks())
    kinds = [e.tags["origin"]["kind"] for e in examples]
    assert kinds.count("general") == kinds.count("good") == metrics["round/good"] > 0
    assert metrics["search/environment_steps"] == method.run.ledger.environment_steps > 0
    assert "task  N=" in next(iter(method.run.trees_log))["view"]


def test_failures_of_the_start_are_taken_over(tmp_path: Path) -> None:
    method = ready(tmp_path, prefix_turns=2)
    method.held_out = [TASK]
    first = method.evaluation().metrics
    (begun,) = method.begun
    assert sum(m.role == "assistant" for m in begun.start.messages) == 2
    assert {"eval/recovered", "eval/revision_score", "eval/run_length"} <= first.keys()
    again = ready(tmp_path / "again")
    again.load_state(method.state())
    assert again.begun == method.begun


def test_input_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--replay-check"):
        ready(tmp_path, "arithmetic", replay_check=True)
    with pytest.raises(InputError, match="--cut exact"):
        ready(tmp_path, "arithmetic", cut="exact")
    with pytest.raises(InputError, match="--good-above is empty"):
        ready(tmp_path, good_above=())
    (tmp_path / "bare.jsonl").write_text('{"prompt": "hello"}\n' * 3)
    with pytest.raises(InputError):
        ready(tmp_path, general_tasks=str(tmp_path / "bare.jsonl"))
