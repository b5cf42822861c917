"""What sets LATR, TTRL and ETTRL apart, on the embedded model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.config import RunConfig
from etude.errors import InputError
from etude.method import get_method
from etude.methods.exploration.latr import LATRConfig, share_at
from etude.models.language import LanguageModel
from etude.rewards.votes import answers_of
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin import builtin_task_sets
from etude.types import Group, Message, Segment, Task, Trajectory, trajectories_of

SMALL: dict[str, Any] = {"tasks_per_step": 2, "group_size": 4, "max_new_tokens": 20, "eval_tasks": 2, "eval_samples": 2, "warmup_steps": 0, "eval_kl": False}
OPEN: dict[str, Any] = {"branch_candidates": 4, "branch_probability": 0.02, "branch_gap": 0.95}


class Unlabelled(TaskSet):
    """Countdown without a verdict: whatever a vote needs is in the attempts."""

    name = "unlabelled"

    def __init__(self) -> None:
        self.tasks = builtin_task_sets()["countdown"]()

    def train_task(self, seed: int, index: int) -> Task:
        task = self.tasks.train_task(seed, index)
        return Task(task.id, task.messages)

    def held_out(self) -> list[Task]:
        return [Task(task.id, task.messages) for task in self.tasks.held_out()]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        assert task.answer is None
        return {"correct": math.nan}


def ready(slug: str, tmp_path: Path, *, tasks: TaskSet | None = None, **settings: Any) -> Any:
    """A method that is set up, on the embedded model."""
    config = build_config(slug, **{**SMALL, **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=settings.get("save_trajectories", 0)))
    method: Any = get_method(slug)(config, run, policy=LanguageModel.load("tiny", device="cpu"), task_set=tasks or builtin_task_sets()["countdown"]())
    method.setup()
    run.step = 1
    return method


def attempt(answer: str | None, *, correct: float = 0.0, entropy: float = 0.5) -> Trajectory:
    text = "1+1=2" if answer is None else f"answer: {answer}"
    segment = Segment([5, 6], "policy", text, trained=True, logprobs=[-1.0] * 2, entropies=[entropy] * 2)
    return Trajectory(Task("t", (Message("user", "1+1"),)), [1, 2], [segment], "eos", rewards={"correct": correct})


def collected(method: Any, count: int = 2) -> list[Group]:
    groups: list[Group] = method.collect(method.curriculum.next(count))
    return groups


# LATR


def test_the_share_of_the_tree_falls() -> None:
    assert [share_at(i, LATRConfig(tree_share=0.8, tree_decay=0.5)) for i in range(3)] == pytest.approx([0.8, 0.4, 0.2])
    table = LATRConfig(tree_schedule="0:1,10:.75,20:0.5,80:0.25,200:0")
    assert [share_at(i, table) for i in (0, 9, 10, 19, 20, 79, 80, 199, 200, 999)] == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0, 0]


@pytest.mark.parametrize("schedule", ["1:1", "0:1,0:2", "0:1,5:2", "0:1,20:0.5,10:0", "half", "0"])
def test_a_schedule_that_cannot_be_read_is_refused(schedule: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--tree-schedule is .* expected rising steps from 0"):
        ready("latr", tmp_path, tree_schedule=schedule)


def test_a_group_is_part_tree_and_part_samples(tmp_path: Path) -> None:
    method = ready("latr", tmp_path, group_size=8, tree_share=0.6, tree_decay=1.0, **OPEN)
    groups = collected(method)
    for group in groups:
        assert len(group) == 8
        # round(0.6 x 8) = 5.
        assert [b.opened == "sampled" for b in group.tags["tree"].kept] == [False] * 5 + [True] * 3
        assert any(t.parent is not None for t in group.trajectories)
    metrics = method.credit(groups)
    assert metrics["tree/share"] == 0.6
    assert metrics["tree/opened"] > 0
    distinct = [len({a for a in answers_of(g.trajectories, method.task_set.answer_in) if a is not None}) for g in groups]
    assert metrics["explore/answers"] == sum(distinct) / 2


def test_without_a_share_it_is_grpo_to_the_last_digit(tmp_path: Path) -> None:
    latr, grpo = (ready(slug, tmp_path, **settings) for slug, settings in (("latr", {"tree_share": 0.0}), ("grpo", {})))
    ours, theirs = latr.step(), grpo.step()
    assert {k: v for k, v in ours.items() if k in theirs and not k.startswith("time/")} == {k: v for k, v in theirs.items() if not k.startswith("time/")}
    assert latr.run.ledger == grpo.run.ledger


def test_a_branch_is_held_against_its_parent_as_the_options_say(tmp_path: Path) -> None:
    pruned = {}
    for pruning in ("edits", "overlap", "random", "none"):
        method = ready("latr", tmp_path, group_size=8, pruning=pruning, prune_rate=1.0, prune_suffix=0.0, growing_steps=12, **OPEN)
        trees = [group.tags["tree"] for group in collected(method)]
        pruned[pruning] = {b.pruned.split(" 0.")[0].split(" 1.")[0].split(" after")[0] for tree in trees for b in tree.pruned} - {"with its parent"}
    assert pruned["edits"] == {"edit distance"}
    assert pruned["overlap"]
    assert pruned["overlap"] <= {"suffix match", "ROUGE-L"}
    assert pruned["random"] == {"by chance"}
    assert not pruned["none"]


def test_growing_stops_half_way_unless_told_otherwise(tmp_path: Path) -> None:
    assert ready("latr", tmp_path).rule.force == 10
    assert ready("latr", tmp_path, growing_steps=7).rule.force == 7


# TTRL


def test_the_majority_is_the_label_whatever_the_truth(tmp_path: Path) -> None:
    method = ready("ttrl", tmp_path, tasks=Unlabelled(), probe="never")
    group = Group("t", [attempt("7"), attempt("3"), attempt("3.0"), attempt(None), attempt("3")])
    method.judge([group])
    assert [t.reward for t in group.trajectories] == [0, 1, 1, 0, 1]
    assert [t.rewards["vote"] for t in group.trajectories] == [0, 1, 1, 0, 1]
    # The verdict stays beside it, for the log alone.
    assert all(math.isnan(t.rewards["correct"]) for t in group.trajectories)
    groups = collected(method)
    assert all(t.reward in (0, 1) for t in trajectories_of(groups))
    metrics = method.credit(method.select(groups))
    assert "votes/label_accuracy" not in metrics
    assert metrics["votes/majority_ratio"] == sum(g.tags["vote"].ratio for g in groups) / 2


def test_more_attempts_vote_than_are_trained_on(tmp_path: Path) -> None:
    method = ready("ttrl", tmp_path, votes_per_task=12, probe="never")
    groups = collected(method)
    assert [len(g) for g in groups] == [12, 12]
    chosen = method.select(groups)
    assert [g.trajectories for g in chosen] == [g.trajectories[:4] for g in groups]
    assert method.run.ledger.rollouts == 24
    metrics = method.credit(chosen)
    right = [t.rewards["correct"] for t in trajectories_of(groups)]
    assert metrics["votes/right_share"] == pytest.approx(sum(right) / 24)
    method.update(chosen)
    assert method.run.ledger.trained_tokens == sum(t.trained_length for t in trajectories_of(chosen))


def test_the_control_does_not_count(tmp_path: Path) -> None:
    method = ready("ttrl", tmp_path, tasks=Unlabelled(), pseudo_labels="random", probe="never")
    groups = [Group(str(i), [attempt("3")] * 9 + [attempt("7")]) for i in range(60)]
    method.judge(groups)
    labels = [g.tags["label"] for g in groups]
    assert 15 < labels.count("7") < 45


def test_fewer_votes_than_attempts_to_train_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--votes-per-task is 3 and --group-size 4; .* at least as many votes"):
        ready("ttrl", tmp_path, votes_per_task=3)


@pytest.mark.parametrize("slug", ["ttrl", "ettrl"])
def test_the_probe_watches_methods_without_labels(slug: str, tmp_path: Path) -> None:
    method = ready(slug, tmp_path, probe_size=8, probe_samples=3)
    assert method.card.label_free
    reading = method.read_probe()
    # Each vote has a winner wherever anybody answered: the proxy is above zero on every such task.
    assert reading.metrics["probe/proxy"] > 0
    assert 0 <= reading.metrics["probe/accuracy"] <= 1


# ETTRL


def test_all_leaves_vote_and_some_are_trained_on(tmp_path: Path) -> None:
    method = ready("ettrl", tmp_path, roots=3, forks=2, branches=1, group_size=5, probe="never")
    groups = collected(method)
    assert [len(g) for g in groups] == [9, 9]
    assert all(len(g.tags["vote"].winners) == 9 for g in groups)
    chosen = method.select(groups)
    for group, whole in zip(chosen, groups, strict=True):
        roots = [whole.trajectories.index(t) // 3 for t in group.trajectories]
        assert sorted(roots.count(i) for i in range(3)) == [1, 2, 2]
    metrics = method.credit(chosen)
    assert 1 <= metrics["votes/effective"] <= 9
    assert metrics["tree/leaves_per_100_tokens"] == pytest.approx(100 * 18 / method.run.ledger.generated_tokens)


def test_forks_stay_out_of_the_answer_and_off_the_end(tmp_path: Path) -> None:
    for inside in (False, True):
        method = ready("ettrl", tmp_path, roots=4, max_new_tokens=36, fork_answers=inside, probe="never")
        ends, answers = [], []
        for group in collected(method):
            for branch in group.tags["tree"].kept:
                if branch.parent is None:
                    text = method.policy.decode(branch.tokens)
                    start = len(method.policy.decode(branch.tokens[: method.forkable(branch)]))
                    answer = method.task_set.answer_in(text)
                    ends.append(method.forkable(branch) < len(branch.tokens) or branch.completion.stop_reason != "eos")
                    answers.append(answer is None or start <= text.rfind(answer))
        assert all(ends)
        assert all(answers) != inside


@pytest.mark.parametrize(
    ("reshaping", "expected"),
    [
        # Rewards 1, 0, 0: mean 1/3, deviation 0.57735. Entropies 0.5, 1, 1.5 have the weights 1.5, 1, 0.5.
        ("entropy", [1.7321, -0.5774, -0.2887]),
        ("inverted", [0.5774, -0.5774, -0.8660]),
        ("none", [1.1547, -0.5774, -0.5774]),
    ],
)
def test_certain_attempts_count_more(reshaping: str, expected: list[float], tmp_path: Path) -> None:
    method = ready("ettrl", tmp_path, reshaping=reshaping, probe="never")
    method.counted = {}
    group = Group("t", [attempt("3", entropy=e) for e in (0.5, 1.0, 1.5)])
    for trajectory, reward in zip(group.trajectories, (1.0, 0.0, 0.0), strict=True):
        trajectory.reward = reward
    metrics = method.credit([group])
    assert [t.segments[0].advantages for t in group.trajectories] == [[pytest.approx(a, abs=1e-3)] * 2 for a in expected]
    assert metrics["signal/advantage_sum"] == pytest.approx(sum(expected), abs=1e-3)


def test_shuffled_weights_are_the_same_weights_elsewhere(tmp_path: Path) -> None:
    method = ready("ettrl", tmp_path, reshaping="shuffled", probe="never")
    group = Group("t", [attempt("3", entropy=e) for e in (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)])
    shuffled = [method.weights(group, place).tolist() for place in range(4)]
    method.config.reshaping = "entropy"
    ours = method.weights(group, 0).tolist()
    assert all(sorted(row) == pytest.approx(sorted(ours)) for row in shuffled)
    assert any(row != ours for row in shuffled)


def test_advantages_can_be_bounded_instead(tmp_path: Path) -> None:
    method = ready("ettrl", tmp_path, reshaping="none", advantage_bound=1.0, probe="never")
    method.counted = {}
    group = Group("t", [attempt("3") for _ in range(4)])
    for trajectory, reward in zip(group.trajectories, (1.0, 0.0, 0.0, 0.0), strict=True):
        trajectory.reward = reward
    method.credit([group])
    # 1.5 and three times -0.5 without the bound.
    assert [t.segments[0].advantages[0] for t in group.trajectories] == pytest.approx([1.0, -0.5, -0.5, -0.5], abs=1e-4)


def test_too_few_leaves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 roots with 0 forks of 2 branches give 2 attempts and --group-size is 4"):
        ready("ettrl", tmp_path, roots=2, forks=0)


# Both kinds of tree


@pytest.mark.parametrize("slug", ["latr", "ettrl"])
def test_an_environment_is_refused(slug: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calculator is played in turns with an environment, and .* single turn; choose other tasks"):
        ready(slug, tmp_path, tasks=builtin_task_sets()["calculator"]())


@pytest.mark.parametrize("slug", ["latr", "ettrl"])
def test_a_tree_of_each_step_is_recorded_and_resumed(slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "tasks": "countdown", "steps": 3, "checkpoint_every": 1, "evaluate_every": 0, "quiet": True, "threads": 1, "probe": "never"}
    etude.train(slug, out=tmp_path / "whole", **settings)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "trees.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(sum(not b["pruned"] for b in line["branches"]) >= 4 for line in lines)
    method: Any = get_method(slug)
    update = method.update

    def interrupted(self: Any, groups: Any) -> Any:
        # The step's tree is written by now, and not yet in any checkpoint.
        if self.run.step == 3:
            raise KeyboardInterrupt
        return update(self, groups)

    with monkeypatch.context() as patch:
        patch.setattr(method, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            etude.train(slug, out=tmp_path / "parted", **settings)
    assert len((tmp_path / "parted" / "trees.jsonl").read_text().splitlines()) == 3
    etude.train(resume=tmp_path / "parted")
    assert (tmp_path / "parted" / "trees.jsonl").read_text() == (tmp_path / "whole" / "trees.jsonl").read_text()
    assert "Trees of attempts" in (tmp_path / "whole" / "report.html").read_text()


def test_no_tree_is_recorded_where_no_trajectories_are(tmp_path: Path) -> None:
    for slug in ("latr", "ettrl"):
        method = ready(slug, tmp_path, probe="never")
        collected(method)
    assert not (tmp_path / "trees.jsonl").exists()


@pytest.mark.parametrize("labels", [False, True])
def test_prompts_without_answers_are_enough(labels: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    tasks = builtin_task_sets()["arithmetic"]()
    rows: list[dict[str, Any]] = [{"prompt": tasks.train_task(0, i).prompt, "split": "train"} for i in range(8)]
    held_out = [tasks.train_task(1, i) for i in range(10)]
    rows += [{"prompt": task.prompt, "split": "test"} | ({"answer": task.answer} if labels else {}) for task in held_out]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {**SMALL, "tasks": str(tmp_path / "prompts.jsonl"), "steps": 2, "quiet": True, "threads": 1, "max_new_tokens": 30, "probe_samples": 2}
    etude.train("ttrl", out=tmp_path / "run", votes_per_task=6, **settings)
    lines = Run.open(tmp_path / "run").metrics()
    steps = [line for line in lines if "time/step" in line]
    assert all(line["votes/majority_ratio"] > 0 and "votes/label_accuracy" not in line for line in steps)
    assert any("eval/pass@1" in line for line in lines) == labels
    # Labelled tasks watch the run where there are some; where there are none the run says so.
    assert (tmp_path / "run" / "probe.jsonl").exists() == labels
    assert any("nothing watches it for a collapse" in str(w.message) for w in recwarn) != labels
    with pytest.raises(InputError, match="so nothing can judge an attempt"):
        etude.train("grpo", out=tmp_path / "refused", **settings)
