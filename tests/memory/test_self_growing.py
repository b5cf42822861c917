"""The curriculum whose starts grow out of attempts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from etude.memory import History, SelfGrowingCurriculum, TaskBuffer, UniformCurriculum
from etude.memory.self_growing import QUALITY
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.iterates import Mode, begun_from
from etude.types import Group, Segment, Task, Trajectory


def begin(history: History, mode: Mode) -> Task:
    return begun_from(history.task, history.attempts[-1], mode, "", author="buffer")


def curriculum(**options: Any) -> SelfGrowingCurriculum:
    inner = UniformCurriculum(builtin_task_sets()["arithmetic"](), 0)
    return SelfGrowingCurriculum(inner, TaskBuffer(), begin, seed=0, **{"minimum": 1, "share": 1.0, "prefix": "whole", "diverge": 0.0, **options})


def tried(task: Task, *rewards: float, texts: Sequence[str] = ()) -> Group:
    texts = texts or [f"{task.opening[-2].content if task.start else 'first'}, {i}" for i in range(len(rewards))]
    attempts = [
        Trajectory(task, [], [Segment([1], "policy", text)], "eos", reward=reward, tags={QUALITY: reward}) for text, reward in zip(texts, rewards, strict=True)
    ]
    return Group(task.id, attempts)


def test_the_best_attempt_of_a_group_becomes_the_next_start() -> None:
    space = curriculum()
    base = space.next(1)[0]
    assert base.start is None
    space.observe([tried(base, 0.0, 1.0, 0.5, texts=("bad", "good", "fair"))])
    parent, child = space.buffer
    assert (parent.id, parent.visits, child.visits) == (base.id, 1, 0)
    # Population variance of 0, 1 and 1/2.
    assert parent.score == child.score == pytest.approx(1 / 6)
    assert child.item["attempts"] == ["good"]
    assert child.item["qualities"] == [1.0]


def test_histories_grow_step_by_step_and_only_the_newest_attempt_is_shown() -> None:
    space = curriculum(diverge=1.0)
    first = space.next(1)[0]
    space.observe([tried(first, 0.0, 1.0)])
    space.buffer.measured(first.id, first.id, History(first).to_plain(), -10.0, 1)
    second = space.next(1)[0]
    assert space.start_of(second).history.depth == 1
    space.observe([tried(second, 0.0, 1.0)])
    deepest = [e for e in space.buffer if len(e.item["attempts"]) == 2]
    assert [e.item["attempts"] for e in deepest] == [["first, 1", "first, 1, 1"]]
    third = begin(History.from_plain(deepest[0].item), "diverge")
    assert [m.content for m in third.opening] == [first.prompt, "first, 1, 1", "diverge"]
    assert space.metrics([third])["start/depth"] == 0.0, "a task that was not handed out is taken for a base task"


def test_a_start_begins_after_any_number_of_a_historys_attempts() -> None:
    space = curriculum(prefix="uniform")
    base = space.inner.next(1)[0]
    deep = History(base).extended("one", 0.1).extended("two", 0.2)
    space.buffer.measured(deep.key, base.id, deep.to_plain(), 0.2, 0)
    starts = [space.start_of(task) for task in space.next(300)]
    shares = [sum(s.history.depth == d for s in starts) / 300 for d in range(3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.08)
    assert {s.mode for s in starts if s.history.depth == 0} == {None}
    assert {s.history.attempts for s in starts} == {(), ("one",), ("one", "two")}


def test_two_ways_to_the_same_attempt_are_one_start_and_an_unchanged_attempt_adds_none() -> None:
    task = curriculum().inner.next(1)[0]
    assert History(task).extended("a", 0).extended("b", 0).key == History(task).extended("b", 1).key != History(task).extended("a", 0).key
    space = curriculum()
    begun = History(task).extended("same", 0.5)
    space.buffer.measured(begun.key, task.id, begun.to_plain(), 0.2, 0)
    space.observe([tried(space.next(1)[0], 0.0, 0.5, texts=("other", "same"))])
    assert len(space.buffer) == 1


@pytest.mark.parametrize(("options", "size"), [({"expand": "none"}, 1), ({"expand": "all"}, 4), ({}, 2), ({"fits": lambda task: False}, 1)])
def test_expansion_can_be_left_out_or_widened(options: dict[str, Any], size: int) -> None:
    space = curriculum(**options)
    space.observe([tried(space.next(1)[0], 0.0, 1.0, 0.0)])
    assert len(space.buffer) == size


@pytest.mark.parametrize(("options", "fresh"), [({"minimum": 3}, 4), ({"share": 0.0}, 4), ({}, 0)])
def test_base_tasks_are_given_until_the_buffer_holds_enough_and_at_share_0_for_ever(options: dict[str, Any], fresh: int) -> None:
    space = curriculum(**options)
    space.observe([tried(space.next(1)[0], 0.0, 1.0)])
    assert len(space.buffer) == 2
    space.next(4)
    assert space.state()["inner"]["cursor"] == 1 + fresh


def test_it_goes_on_from_its_state_as_if_nothing_had_happened() -> None:
    space, again = curriculum(share=0.5, diverge=0.5), curriculum(share=0.5, diverge=0.5)
    for _ in range(3):
        space.observe([tried(task, 0.0, 1.0) for task in space.next(4)])
    again.load_state(json.loads(json.dumps(space.state())))
    tasks = space.next(8)
    assert again.next(8) == tasks
    assert any(task.start for task in tasks)
    assert again.metrics(tasks) == space.metrics(tasks)
