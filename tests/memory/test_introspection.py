"""Tasks that the model writes itself, with a writer whose words are known."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from etude.memory.introspection import ExamplePool, Introspection, nearest
from etude.rewards.consensus import Consensus
from etude.tasks.feasibility import SHORT, Label
from etude.types import Group, Message, Task, Trajectory

SEEDS: dict[Label, list[str]] = {"feasible": ["s1", "s2", "s3"], "infeasible": ["t1", "t2", "t3"]}


class Writer:
    """Writes a new task at every request, or what it is told to, and keeps the requests."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.requests: list[str] = []

    def __call__(self, requests: Sequence[tuple[Message, ...]], cycle: int) -> list[str]:
        start = len(self.requests)
        self.requests += [messages[-1].content for messages in requests]
        given = [self.texts[i] if i < len(self.texts) else f"{r.partition(':')[0]}{i}" for i, r in enumerate(self.requests)]
        return given[start:]


def introspection(writer: Writer, **options: Any) -> Introspection:
    seeds = {label: list(texts) for label, texts in SEEDS.items()}
    return Introspection(prompts=SHORT, seeds=lambda: seeds, write=writer, rng=lambda *parts: Random(str(parts)), **{"runs": 8, "similar": 1.0, **options})


def judged(task: Task, majority: str | None, share: float) -> Group:
    return Group(task.id, [Trajectory(task, [], [], "eos")], {"consensus": Consensus(majority, share)})


def test_a_batch_is_written_under_both_claims_and_has_its_share_of_verified_tasks() -> None:
    curriculum = introspection(Writer())
    tasks = curriculum.next(10)
    written, verified = tasks[:8], tasks[8:]
    assert [t.answer for t in written] == [None] * 8
    assert sorted(t.info["claim"] for t in written) == ["feasible"] * 4 + ["infeasible"] * 4
    assert all((t.info["text"][0] == "F") == (t.info["claim"] == "feasible") for t in written)
    assert sorted(str(t.answer) for t in verified) == ["feasible", "infeasible"]
    assert all(t.info["text"] in SEEDS[t.answer] for t in verified)  # type: ignore[index]
    # The verdict is asked for without the claim.
    assert [t.prompt for t in tasks] == [f"can? {t.info['text']}" for t in tasks]
    assert len({t.id for t in tasks}) == 10


def test_cycles_follow_until_there_are_tasks_enough_and_the_rest_waits() -> None:
    writer = Writer()
    curriculum = introspection(writer, seed_share=0.0)
    assert len(curriculum.next(10)) == 10
    assert (len(writer.requests), len(curriculum.waiting), curriculum.cycle) == (16, 6, 2)
    curriculum.next(6)
    assert len(writer.requests) == 16


def test_a_model_that_writes_nothing_leaves_the_verified_tasks() -> None:
    writer = Writer(*[""] * 100)
    tasks = introspection(writer, rounds=3).next(10)
    assert len(writer.requests) == 3 * 8
    assert [t.answer is None for t in tasks] == [False, False]


def test_duplicates_are_dropped() -> None:
    writer = Writer("a b c d", "A  b c d", "a b c x", "s1", "held out", "p q r s", "", "two\nlines")
    curriculum = introspection(writer, seed_share=0.0, rounds=1, similar=0.7, forbidden={"held out"})
    assert {t.info["text"] for t in curriculum.next(8)} == {"a b c d", "p q r s"}
    # Of eight answers two have no task in them (the second in two lines), and four tasks are known: three common words of four make 0.75.
    assert curriculum.counted["introspection/malformed"] == pytest.approx(3 / 9)
    assert curriculum.counted["introspection/distinct"] == pytest.approx(2 / 6)
    assert nearest("a b c d", [["a", "b", "c", "x"], ["q"]]) == pytest.approx(0.75)


def test_feasible_share_and_batches_out_of_balance() -> None:
    def claims(**options: Any) -> list[str]:
        return [t.info["claim"] for t in introspection(Writer(), feasible_share=0.75, seed_share=0.0, **options).next(4)]

    assert sorted(claims()) == ["feasible"] * 2 + ["infeasible"] * 2
    counts = [claims(balanced=False).count("feasible"), len(introspection(Writer(), feasible_share=0.75, seed_share=0.0).next(8))]
    assert counts[1] == 8
    writer = Writer()
    introspection(writer, feasible_share=0.75, seed_share=0.0).next(8)
    assert sum(r.startswith("F") for r in writer.requests) == 6


def test_shuffled_claims_keep_their_number_and_lose_their_meaning() -> None:
    curriculum = introspection(Writer(), runs=40, seed_share=0.0, shuffled=True)
    tasks = curriculum.next(40)
    agree = [(t.info["text"][0] == "F") == (t.info["claim"] == "feasible") for t in tasks]
    assert [t.info["claim"] for t in tasks].count("feasible") == 20
    assert 8 < sum(agree) < 32


def test_what_is_agreed_on_and_claimed_becomes_an_example() -> None:
    writer = Writer()
    curriculum = introspection(writer, seed_share=0.0, verified_shots=1, written_shots=1)
    tasks = curriculum.next(8)
    able = [t for t in tasks if t.info["claim"] == "feasible"]
    unable = [t for t in tasks if t.info["claim"] == "infeasible"]
    outcomes = [
        (able[0], "feasible", 1.0),
        (able[1], "feasible", 7 / 8),
        (able[2], "feasible", 6 / 8),
        (able[3], "infeasible", 1.0),
        (unable[0], "infeasible", 1.0),
    ]
    curriculum.observe([judged(*outcome) for outcome in outcomes])
    # As many of one class as of the other: one of each.
    assert curriculum.pool.kept == {"feasible": [able[0].info["text"]], "infeasible": [unable[0].info["text"]]}
    curriculum.next(8)
    asked = writer.requests[8:]
    assert all((able if r.startswith("F") else unable)[0].info["text"] in r for r in asked)
    # A kept task is not handed out again.
    assert all(t.info["text"] != able[0].info["text"] for t in curriculum.next(8))


def test_always_feasible_fills_no_balanced_pool() -> None:
    for balanced, kept in ((True, 0), (False, 4)):
        curriculum = introspection(Writer(), seed_share=0.0, balanced=balanced)
        curriculum.observe([judged(t, "feasible", 1.0) for t in curriculum.next(8)])
        assert [len(curriculum.pool.kept[label]) for label in ("feasible", "infeasible")] == [kept, 0]


def test_the_pool_is_capped_and_seeds_stand_in() -> None:
    pool = ExamplePool({"feasible": ["a", "b", "c"], "infeasible": ["x"]}, capacity=2, balanced=False)
    assert sorted(pool.shots("feasible", 2, 1, Random(0))) == sorted(set(pool.shots("feasible", 2, 1, Random(0)))) == ["a", "b", "c"]
    pool.keep({"feasible": ["k1", "k2", "k3"], "infeasible": []})
    assert pool.kept["feasible"] == ["k2", "k3"]
    shown = pool.shots("feasible", 2, 1, Random(0))
    assert len(shown) == 3
    assert sum(s.startswith("k") for s in shown) == 1
    assert pool.shots("infeasible", 6, 2, Random(0)) == ["x"]


def test_a_saved_state_goes_on_alike() -> None:
    writer = Writer()
    first = introspection(writer)
    first.observe([judged(t, t.info["claim"], 1.0) for t in first.next(6)])
    state = first.state()
    second_writer = Writer()
    second_writer.requests = list(writer.requests)
    second = introspection(second_writer)
    second.load_state(state)
    assert first.next(12) == second.next(12)
    assert first.state() == second.state()
    fresh = introspection(Writer())
    fresh.load_state(introspection(Writer()).state())
    assert fresh.next(4) == introspection(Writer()).next(4)
