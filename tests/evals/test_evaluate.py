"""Measuring a policy: repeatable numbers, records for a report, and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from etude.evals.evaluate import Evaluation, evaluate, keep_samples, record_of
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.tasks.base import TaskSet
from etude.tasks.builtin import builtin_task_sets
from etude.types import Message, Segment, Task, Trajectory


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return LanguageModel.load("tiny", device="cpu")


class Vowels(TaskSet):
    """Whether what was written has an even number of characters; the n-th task's answer is never looked at."""

    name = "vowels"
    max_new_tokens = 6

    def train_task(self, seed: int, index: int) -> Task:
        return Task(f"v{index}", (Message("user", f"count {index}"),), answer=str(index))

    def held_out(self) -> Sequence[Task]:
        return [self.train_task(0, i) for i in range(5)]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": float(len(text) % 2 == 0), "format": 0.5}


def measured(policy: LanguageModel, **options: Any) -> Evaluation:
    tasks = Vowels()
    return evaluate(policy, tasks, **{"tasks": tasks.held_out(), "samples": 3, **options})


def texts(evaluation: Evaluation) -> list[list[str]]:
    return [[t.text for t in row] for row in evaluation.trajectories]


def test_the_same_seed_gives_the_same_numbers(policy: LanguageModel) -> None:
    one, two, other = measured(policy), measured(policy), measured(policy, seed=1)
    assert one.metrics == two.metrics
    assert texts(one) == texts(two)
    assert texts(one) != texts(other)


def test_an_attempt_does_not_depend_on_how_many_there_are(policy: LanguageModel) -> None:
    few = measured(policy, samples=1, tasks=Vowels().held_out()[2:4])
    many = measured(policy)
    assert texts(few) == [row[:1] for row in texts(many)[2:4]]


def test_numbers_are_those_of_the_attempts(policy: LanguageModel) -> None:
    ledger = Ledger()
    found = measured(policy, ledger=ledger)
    flat = [t for row in found.trajectories for t in row]
    assert [[t.task.id for t in row] for row in found.trajectories] == [[f"v{i}"] * 3 for i in range(5)]
    right = [len(t.text) % 2 == 0 for t in flat]
    assert found.metrics["eval/pass@1"] == pytest.approx(sum(right) / 15)
    assert found.metrics["eval/reward"] == pytest.approx(sum(right) / 15)
    assert found.metrics["eval/length"] == pytest.approx(sum(len(t.tokens) for t in flat) / 15)
    assert found.metrics["eval/truncated"] == pytest.approx(sum(t.stop_reason == "length" for t in flat) / 15)
    assert found.metrics["eval/format"] == 0.5
    entropies = [e for t in flat for e in t.segments[0].entropies]
    assert found.metrics["eval/entropy"] == pytest.approx(sum(entropies) / len(entropies))
    assert (ledger.rollouts, ledger.generated_tokens) == (15, sum(len(t.tokens) for t in flat))


def test_greedy_attempts_are_all_the_same_and_limits_are_kept(policy: LanguageModel) -> None:
    greedy = measured(policy, temperature=0.0, max_new_tokens=3)
    assert all(len(set(row)) == 1 for row in texts(greedy))
    assert max(len(t.tokens) for row in greedy.trajectories for t in row) <= 3
    assert max(len(t.tokens) for row in measured(policy).trajectories for t in row) <= Vowels.max_new_tokens


def test_episodes_take_at_most_the_turns_of_the_task_set(policy: LanguageModel) -> None:
    tasks = builtin_task_sets()["check-and-fix"]()
    asked = list(tasks.held_out())[:2]
    two = evaluate(policy, tasks, tasks=asked, samples=1, max_new_tokens=5)
    one = evaluate(policy, tasks, tasks=asked, samples=1, max_new_tokens=5, max_turns=1)
    assert [[s.author for s in row[0].segments] for row in two.trajectories] == [["policy", "environment", "policy"]] * 2
    assert [[s.author for s in row[0].segments] for row in one.trajectories] == [["policy"]] * 2
    assert {"eval/pass@1", "eval/reward"} <= set(two.metrics)


def test_a_record_is_plain_and_says_who_wrote_what() -> None:
    task = Task("t", (Message("user", "2+3="),), answer="5")
    single = Trajectory(task, [1], [Segment([4, 5], "policy", "5", trained=True)], "eos", sample=2, rewards={"correct": 1.0}, reward=1.0)
    assert record_of(single) == {
        "task_id": "t",
        "prompt": "2+3=",
        "answer": "5",
        "text": "5",
        "reward": 1.0,
        "rewards": {"correct": 1.0},
        "correct": 1.0,
        "length": 2,
        "stop_reason": "eos",
        "sample": 2,
    }
    turns = [Segment([4], "policy", "4"), Segment([7, 8], "tool", "no"), Segment([5, 6], "policy", "5")]
    several = record_of(Trajectory(task, [1], turns, "environment"))
    assert several["text"] == "[policy] 4\n[tool] no\n[policy] 5"
    assert several["length"] == 3
    assert record_of(Trajectory(task, [1], [Segment([4], "injected", "shown")], "eos"))["text"] == "shown"


def test_records_are_spread_over_the_split(policy: LanguageModel) -> None:
    found = measured(policy)
    assert [r["task_id"] for r in found.records(2)] == ["v0", "v2"]
    assert [(r["task_id"], r["sample"]) for r in found.records(1, samples=2)] == [("v0", 0), ("v0", 1)]
    assert [r["task_id"] for r in found.records(99)] == [f"v{i}" for i in range(5)]


def test_the_first_and_the_newest_samples_are_kept(tmp_path: Path, policy: LanguageModel) -> None:
    found = measured(policy)

    def kept() -> list[tuple[int, str, str]]:
        records = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
        return [(r["step"], r["task_id"], r["text"]) for r in records]

    expected = [(r["task_id"], r["text"]) for r in found.records(24)]
    for step in (0, 10, 20):
        keep_samples(tmp_path, step, found)
        assert kept() == [(s, *e) for s in dict.fromkeys((0, step)) for e in expected]
    # A run that begins again forgets what stood there.
    keep_samples(tmp_path, 0, found, count=1)
    assert kept() == [(0, *expected[0])]
