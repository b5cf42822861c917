"""CoSC: where the seed comes from, what the second phase keeps, and what of a conversation is learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import completion, serving

from etude.config import RunConfig
from etude.curation import share_weights
from etude.errors import InputError
from etude.method import get_method
from etude.models.language import LanguageModel
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.small_programs import SmallProgramTasks
from etude.tasks.program_rounds import programs_in
from etude.tasks.revisions import VERDICTS
from etude.types import Group, Segment, Trajectory

SMALL: dict[str, Any] = {
    "tasks_per_round": 16,
    "tasks_per_step": 4,
    "group_size": 2,
    "steps_per_round": 1,
    "eval_tasks": 3,
    "eval_kl": False,
    "warmup_steps": 0,
}


def ready(tmp_path: Path, tasks: TaskSet | None = None, **settings: Any) -> Any:
    config = build_config("cosc", **{**SMALL, **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=0))
    method: Any = get_method("cosc")(config, run, policy=LanguageModel.load("tiny", device="cpu"), task_set=tasks or SmallProgramTasks())
    method.setup()
    run.step = 1
    return method


def test_some_are_given_a_share_of_the_weight() -> None:
    assert share_weights([True, False, False, False], 0.5) == [3.0, 1.0, 1.0, 1.0]
    assert share_weights([True, True, False], 0.5) == [1.0] * 3
    assert share_weights([False, False], 0.5) == [1.0, 1.0]
    weights = share_weights([True, True, False, False, False], 0.6)
    assert sum(weights[:2]) / sum(weights) == pytest.approx(0.6)


def test_the_seed_is_learnt_with_its_mistakes_and_without_its_outputs(tmp_path: Path) -> None:
    method = ready(tmp_path, SmallProgramTasks(wrong_first=0.5))
    metrics = method.step()
    assert (metrics["seed/made"], metrics["seed/kept"], metrics["round/corpus"]) == (16, 1.0, 16)
    assert 0 < metrics["seed/several"] < 1
    assert method.run.ledger.generated_tokens == 0
    for example in method.corpus.examples:
        own, read = example.segments[::2], example.segments[1::2]
        assert all(s.trained and s.advantages == [1.0] * len(s.tokens) for s in own)
        assert not any(s.trained for s in read)
        assert [method.language.run(p).text for p in programs_in(example, method.language)] == [s.text for s in read]


def test_conversations_that_end_wrong_are_no_seed(tmp_path: Path) -> None:
    metrics = ready(tmp_path, SmallProgramTasks(slips=0.5)).step()
    assert 0 < metrics["seed/kept"] < 1


def test_the_second_phase_keeps_what_ended_well_and_each_way_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = ready(tmp_path, several_share=0.5)
    method.step()
    seed = list(method.corpus.examples)
    task = method.task_set.train_task(0, 999)
    right = method.task_set.program(task)

    def attempt(*turns: str, reward: float = 1.0) -> Trajectory:
        said = [Segment([7, 8], "policy" if i % 2 == 0 else "tool", turn, trained=i % 2 == 0) for i, turn in enumerate(turns)]
        return Trajectory(task, [1, 2], said, "environment", reward=reward, rewards={"correct": reward}, tags={VERDICTS: [reward] * 3})

    plain, mended = (f"<calc>{right}", "1", "answer: 1"), ("<calc>out 1", "1", f"no <calc>{right}", "1", "answer: 1")
    attempts = [attempt(*plain), attempt(*plain[:2], "other words"), attempt(*mended), attempt(*plain, reward=0.0), attempt("answer: 1"), attempt(*mended[:3])]
    monkeypatch.setattr(method, "collect", lambda tasks: [Group(task.id, attempts)])
    moved = {name: p.detach().clone() for name, p in method.policy.model.named_parameters()}
    assert any(not p.equal(method.base[name]) for name, p in moved.items())
    method.run.step = 2
    metrics = method.begin_round()
    kept = method.corpus.examples[len(seed) :]
    assert [programs_in(t, method.language) for t in kept] == [[right], ["out 1", right]]
    assert [t.tags["origin"]["kind"] for t in kept] == ["self-made"] * 2
    assert [t.segments[0].advantages[0] for t in kept] == [1.0, 1.0]
    assert metrics["attempts/first_right"] == 5 / 6
    assert (metrics["self/kept"], metrics["self/several"], metrics["round/corpus"]) == (2 / 6, 0.5, len(seed) + 2)
    # From the base again, on the seed and its own.
    assert all(p.equal(method.base[name]) for name, p in method.policy.model.named_parameters())
    assert method.corpus.chosen == list(range(len(seed) + 2))


def test_a_file_or_a_teacher_gives_the_seed(tmp_path: Path) -> None:
    tasks = SmallProgramTasks()
    task = tasks.train_task(0, 0)
    right = [{"role": m.role, "content": m.content} for m in tasks.conversation(task, 0)]
    wrong = [*right[:-1], {"role": "assistant", "content": "answer: 1000"}]
    path = tmp_path / "seed.jsonl"
    rows = [{"messages": right, "answer": task.answer}, {"messages": wrong, "answer": task.answer}, {"messages": wrong}]
    path.write_text("\n".join(map(json.dumps, rows)))
    # The second ends wrong; of the third nobody can say.
    from_file = ready(tmp_path / "file", seed_source=str(path), keep_distinct=False)
    assert from_file.step()["seed/kept"] == pytest.approx(2 / 3)

    program = f"<calc>{tasks.program(task)}"
    with serving() as server:
        server.models = ["large"]
        answers = {1: program, 3: f"ok\nanswer: {task.answer}"}
        server.reply = lambda body: (200, completion([answers[len(body["messages"])]], tokens=7))
        (tmp_path / "ask.txt").write_text("solve: {question}")
        method = ready(tmp_path / "taught", seed_source=server.url, seed_tasks=1, teacher_prompt=str(tmp_path / "ask.txt"))
        assert method.step()["seed/kept"] == 1.0
        asked = [body["messages"] for _, body, _ in server.requests]
    assert [m["content"] for m in asked[1]] == [f"solve: {task.prompt}", f"{program}</calc>", task.answer]
    example = method.corpus.examples[0]
    assert example.prompt == method.policy.render(task.messages)
    assert [s.trained for s in example.segments] == [True, False, True]
    assert method.run.ledger.model_calls == {"teacher": 2}
    assert method.run.ledger.generated_tokens == 14


@pytest.mark.parametrize(
    ("tasks", "settings", "named"),
    [
        (Arithmetic(), {}, "not solved by programs in rounds"),
        (None, {"several_share": 1.0}, "several-share is 1.0"),
        (None, {"seed_source": "nowhere.jsonl"}, "nowhere.jsonl cannot be read"),
        (None, {"seed_source": "./nowhere"}, "--seed-source ./nowhere can't be used"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, tasks: TaskSet | None, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        ready(tmp_path, tasks, **settings)
