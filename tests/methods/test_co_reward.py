"""Co-Reward: whose vote rewards whom, where pairs come from, and what gives a consensus on nothing away."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.config import RunConfig
from etude.errors import InputError
from etude.ledger import Ledger
from etude.method import get_method
from etude.models.language import LanguageModel
from etude.models.learner import SUMMAND
from etude.run import Run, without_time
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.twins import is_twin, pair_id
from etude.types import Group, Segment, Task, Trajectory, trajectories_of

SMALL: dict[str, Any] = {"tasks_per_step": 2, "group_size": 4, "eval_tasks": 4, "eval_samples": 1, "eval_kl": False, "max_new_tokens": 10, "probe": "never"}
RUN: dict[str, Any] = {**SMALL, "steps": 2, "quiet": True, "threads": 1, "evaluate_every": 0, "checkpoint_every": 1}


def ready(tmp_path: Path, tasks: TaskSet | None = None, **settings: Any) -> Any:
    config = build_config("co-reward", **{**SMALL, **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=0))
    task_set = tasks or builtin_task_sets()["arithmetic"]()
    method: Any = get_method("co-reward")(config, run, policy=LanguageModel.load("tiny", device="cpu"), task_set=task_set)
    method.setup()
    run.step = 1
    return method


def answered(method: Any, *rows: Sequence[str]) -> list[Group]:
    """Groups of the first task's two wordings, with these answers."""
    (task,) = method.curriculum.next(1)
    groups = []
    for wording, row in zip(method.wordings(task), rows, strict=True):
        texts = [f"answer: {wording.answer if a == 'right' else a}" if a else "well" for a in row]
        groups.append(Group(wording.id, [Trajectory(wording, [1], [Segment([5, 6], "policy", text, trained=True)], "eos") for text in texts]))
    return groups


def rewards(groups: Sequence[Group]) -> list[list[float]]:
    return [group.rewards for group in groups]


@pytest.mark.parametrize(
    ("label", "first", "second"),
    [
        ("crossed", [1, 0, 0, 0], [0, 0, 0, 1]),
        ("own", [0, 1, 1, 0], [1, 1, 1, 0]),
        ("pooled", [1, 0, 0, 0], [1, 1, 1, 0]),
        ("truth", [1, 0, 0, 0], [1, 1, 1, 0]),
    ],
)
def test_whose_vote_is_the_label(tmp_path: Path, label: str, first: list[float], second: list[float]) -> None:
    # The first wording is wrong alike twice, the second right three times and once wrong like the first.
    method = ready(tmp_path, label=label)
    groups = answered(method, ["right", "0", "0", ""], ["right", "right", "right", "0"])
    method.judge(groups[::-1])
    assert rewards(groups) == [first, second]
    assert [t.rewards["correct"] for t in trajectories_of(groups)] == [1, 0, 0, 0, 1, 1, 1, 0]


def test_where_the_wordings_answer_differently_nobody_learns_and_each_group_is_normalised_by_itself(tmp_path: Path) -> None:
    method = ready(tmp_path)
    method.counted = {}
    split = answered(method, ["7", "7", "7", "7"], ["8", "8", "8", "8"])
    method.judge(split)
    assert rewards(split) == [[0] * 4, [0] * 4]
    # The first group earns 1 1 0 0, the second 1 1 1 0: a hit is worth (1 - 1/2) / sqrt(1/3) in the first and (1 - 3/4) / (1/2) in the second.
    groups = answered(method, ["right", "right", "9", ""], ["right", "right", "right", "9"])
    method.judge(groups)
    assert rewards(groups) == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert method.credit([*split, *groups])["signal/degenerate"] == 0.5
    advantages = [[t.segments[0].advantages[0] for t in g.trajectories] for g in groups]
    assert advantages[0] == pytest.approx([0.866, 0.866, -0.866, -0.866], abs=1e-3)
    assert advantages[1] == pytest.approx([0.5, 0.5, 0.5, -1.5], abs=1e-4)
    assert all(t.segments[0].advantages == [0, 0] for t in trajectories_of(split))


def test_a_group_without_its_twin_is_not_judged(tmp_path: Path) -> None:
    method = ready(tmp_path)
    first, _ = answered(method, ["1", "1"], ["1", "1"])
    method.judge([first])
    assert all(math.isnan(t.reward) for t in first.trajectories)


def test_a_step_attempts_both_wordings_and_adds_their_losses(tmp_path: Path) -> None:
    method = ready(tmp_path)
    groups = method.collect(method.curriculum.next(2))
    assert [len(g) for g in groups] == [4] * 4
    assert method.run.ledger.rollouts == 16
    tasks = [g.trajectories[0].task for g in groups]
    assert [is_twin(t) for t in tasks] == [False, True, False, True]
    assert all(a.prompt != b.prompt and a.answer == b.answer and pair_id(b) == a.id for a, b in (tasks[:2], tasks[2:]))
    assert [t.tags[SUMMAND] for t in trajectories_of(groups)] == (["original"] * 4 + ["twin"] * 4) * 2
    assert [len(unit) for unit in method.units(groups)] == [8, 8]
    assert {"votes/agreement", "votes/label_accuracy", "votes/one_answer", "pairs/left_out"} <= set(method.counted)
    together = ready(tmp_path, sum_wordings=False)
    assert all(SUMMAND not in t.tags for t in trajectories_of(together.collect(together.curriculum.next(2))))


def test_copies_ask_one_of_both_wordings_twice(tmp_path: Path) -> None:
    method, plain = ready(tmp_path, twins="copy"), ready(tmp_path)
    asked_as = []
    for task in method.curriculum.next(40):
        first, second = method.wordings(task)
        original, twin = plain.wordings(task)
        assert first.prompt == second.prompt
        assert first.prompt in (original.prompt, twin.prompt)
        assert (is_twin(first), is_twin(second)) == (False, True)
        asked_as.append(first.prompt == original.prompt)
        assert method.wordings(task) == (first, second)
    assert 10 < sum(asked_as) < 30


def test_the_probe_asks_both_wordings(tmp_path: Path) -> None:
    method = ready(tmp_path, probe="always", probe_size=8, probe_samples=2)
    assert len(method.probe.tasks) == 2 * len({pair_id(t) for t in method.probe.tasks}) > 8
    reading = method.read_probe()
    assert 0 <= reading.metrics["probe/proxy"] <= 1
    # Whoever comes upon one of them in training learns nothing from the pair.
    assert method.probe.holds_back([Trajectory(method.probe.tasks[1], [1], [], "eos")])


def test_one_answer_to_everything_is_noticed(tmp_path: Path) -> None:
    method = ready(tmp_path)
    assert method.one_answer(0.1, 8) == 0
    # Of 8 pairs each may have an answer of its own: 1/8 is usual.
    assert method.one_answer(0.3, 8) == pytest.approx((0.3 - 0.125) / 0.875)
    with pytest.warns(UserWarning, match="60% of all attempts give one and the same answer, which was 10% at the start"):
        assert method.one_answer(0.6, 8) == pytest.approx((0.6 - 0.125) / 0.875)
    # Said once, and never where a question is asked alone.
    assert method.one_answer(0.9, 8) > 0.8
    assert method.one_answer(1.0, 1) == 0


def test_a_consensus_on_one_answer_pays_and_the_probe_finds_it_out(tmp_path: Path) -> None:
    """Both wordings say 0 to everything more than half of the time, which is the majority's answer: to the reward that is agreement, and it rises."""
    warm = {"tasks": "two-views:both=1,constant=0.6", "steps": 14, "tasks_per_step": 32, "lr": 1e-3, "export": "last", "eval_tasks": 4, "eval_samples": 1}
    etude.train("sft", out=tmp_path / "warm", quiet=True, threads=1, eval_kl=False, evaluate_every=0, **warm)
    probed = {"probe": "always", "probe_size": 16, "probe_samples": 4, "probe_every": 4, "steps": 8, "tasks_per_step": 8, "group_size": 8, "lr": 1e-3}
    settings = {**RUN, **probed, "model": str(tmp_path / "warm" / "model"), "tasks": "two-views", "rewriter": "words", "max_new_tokens": 0}
    with pytest.warns(UserWarning, match="of all attempts give one and the same answer"):
        summary = etude.train("co-reward", out=tmp_path / "run", **{**settings, "checkpoint_every": 0})
    steps = [line for line in Run.open(tmp_path / "run").metrics() if "reward/mean" in line]
    assert steps[-1]["reward/mean"] > 0.95 > steps[0]["reward/mean"] + 0.1
    assert steps[-1]["votes/agreement_wrong"] > 0.8
    assert steps[-1]["votes/label_accuracy"] < 0.2
    assert steps[-1]["votes/top_answer"] > 0.9
    assert "one_answer" in {sign for collapse in summary.collapses for sign in collapse["signs"]}


def test_lines_with_their_own_twin_need_no_answer(tmp_path: Path) -> None:
    lines = [{"prompt": f"compute {i}+3*2", "twin": f"compute 2*3+{i}"} for i in range(2, 12)] + [{"prompt": "compute 30-1"}]
    lines += [{"prompt": f"compute {i}+4", "answer": str(i + 4), "twin": f"compute 4+{i}", "split": "test"} for i in range(4)]
    for line in lines:
        line.setdefault("split", "train")
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = etude.train("co-reward", out=tmp_path / "run", tasks=str(tmp_path / "sums.jsonl"), rewriter="field", eval_twins=True, **RUN)
    assert summary.step == 2
    assert 0 <= summary.after["eval/both_pass@1"] <= 1
    with pytest.raises(InputError, match=r"--label truth rewards right answers, and task .* has none"):
        etude.train("co-reward", out=tmp_path / "none", tasks=str(tmp_path / "sums.jsonl"), rewriter="field", label="truth", **RUN)


def write(asked: Sequence[Task], ledger: Ledger) -> list[str]:
    """A model that turns sums round, and cannot be read every third time."""
    ledger.generated_tokens += 100 * len(asked)
    ledger.count_call("rewriter", len(asked))
    turned = ["*".join(reversed(t.prompt.removeprefix("compute ").split("*"))) for t in asked]
    return [f"ORIGINAL: x\nREWRITE: compute {t}" if len(t) % 3 else "no" for t in turned]


def test_a_model_rewrites_once_and_a_run_that_goes_on_has_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def writer(self: Any, spec: str) -> Any:
        assert spec == "self"
        return lambda asked, ledger: calls.append(len(asked)) or write(asked, ledger)

    monkeypatch.setattr(get_method("co-reward"), "writer", writer)
    settings = {**RUN, "rewriter": "self", "rewrite_tasks": 24, "steps": 3}
    etude.train("co-reward", out=tmp_path / "whole", **settings)
    etude.train("co-reward", out=tmp_path / "parted", **{**settings, "steps": 2})
    etude.train(resume=tmp_path / "parted", steps=3)
    assert calls == [24, 24]
    rows = [[without_time(m) for m in Run.open(tmp_path / name).metrics() if m["step"] == 3 and "reward/mean" in m] for name in ("whole", "parted")]
    for (row,) in rows:
        row["ledger"] = {k: v for k, v in row["ledger"].items() if not k.startswith("evaluation")}
    assert rows[0] == rows[1]
    ledger = rows[0][0]["ledger"]
    assert ledger["model_calls"] == {"rewriter": 24, "policy": 3 * 16}
    assert ledger["generated_tokens"] > 2400
    kept = [json.loads(line) for line in (tmp_path / "whole" / "rewrites.jsonl").read_text().splitlines()]
    unusable = sum(line["twin"] is None for line in kept if "key" in line)
    assert 0 < unusable < 24


def test_the_teachers_vote_is_the_label_and_the_teacher_follows_and_is_saved(tmp_path: Path) -> None:
    settings = {**RUN, "label": "teacher", "steps": 3, "teacher_rate": 0.5, "lr": 1e-3}
    etude.train("co-reward", out=tmp_path / "whole", **settings)
    etude.train("co-reward", out=tmp_path / "parted", **{**settings, "budget": "1-steps"})
    etude.train(resume=tmp_path / "parted", budget="3-steps")
    rows = [[without_time(m) for m in Run.open(tmp_path / name).metrics() if "teacher/rate" in m] for name in ("whole", "parted")]
    assert len(rows[0]) == len(rows[1]) == 3
    assert rows[0][0]["ledger"]["model_calls"] == {"policy": 16, "teacher": 16}
    assert rows[0][0]["teacher/rate"] > rows[0][1]["teacher/rate"] > rows[0][2]["teacher/rate"]
    method = ready(tmp_path / "unit", label="teacher")
    groups = answered(method, ["1", "2", "3", ""], ["4", "5", "6", ""])
    method.judge(groups)
    for group in groups:
        label = group.tags["label"]
        assert group.rewards == [float(f"answer: {label}" == t.last_text) for t in group.trajectories]
    before = method.teacher.state()
    method.load_state(method.state())
    assert all((value == before[name]).all() for name, value in method.teacher.state().items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tasks": "strings"}, "nothing says how to put task"),
        ({"tasks": "strings", "rewriter": "words"}, "--rewriter words gives none of the first 64 tasks of strings another wording"),
        ({"rewriter": "field"}, "--rewriter field gives none of the first 64"),
        ({"rewriter": "nowhere.py:rewrite"}, "there is no file"),
        ({"rewriter": "./no-model"}, "there is no model folder './no-model'"),
        ({"rewriter": "self"}, "tiny reads 256 in all; name a model with a longer context as --rewriter"),
    ],
)
def test_what_cannot_be_put_in_other_words_is_told(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        etude.train("co-reward", out=tmp_path / "run", **{**RUN, **settings})


def test_a_users_function_rewrites(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def rewrite(text):\n    return None if '-' in text else text.replace('compute ', 'quick: ')\n")
    etude.train("co-reward", out=tmp_path / "run", rewriter=f"{tmp_path / 'mine.py'}:rewrite", save_trajectories=16, **RUN)
    prompts = {r["prompt"] for r in Run.open(tmp_path / "run").trajectories_log}
    assert {p.split()[0] for p in prompts} == {"compute", "quick:"}
    assert not any("-" in p for p in prompts)
