"""Dynamic sampling: which groups teach, and how many further tasks are tried for the missing ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from etude.rollouts import is_mixed, until_enough
from etude.types import Group, Message, Task, Trajectory


def task(number: int) -> Task:
    return Task(str(number), (Message("user", "x"),))


def group(key: str, verdicts: Sequence[float]) -> Group:
    return Group(key, [Trajectory(task(0), [1], [], "eos", rewards={"correct": v}, reward=v) for v in verdicts])


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [([1, 0], True), ([1, 1], False), ([0, 0, 0], False), ([0.5, 1], True), ([1, math.nan], False), ([1, 0, math.nan], True), ([1], False), ([], False)],
)
def test_mixed_groups(verdicts: list[float], expected: bool) -> None:
    assert is_mixed(group("t", verdicts)) is expected


def tried(wanted: int, rounds: int, every: int = 3) -> tuple[list[int], list[str], list[str]]:
    """Tasks 0, 1, 2, ... of which each `every`-th is mixed: how many were tried in each round, all of them, and the mixed ones."""
    following = iter(range(wanted, 1000))
    sizes: list[int] = []

    def attempt(tasks: Sequence[Task], number: int) -> list[Group]:
        assert number == len(sizes)
        sizes.append(len(tasks))
        return [group(t.id, [1, 0] if int(t.id) % every == every - 1 else [0, 0]) for t in tasks]

    everything, mixed = until_enough(
        [task(i) for i in range(wanted)], attempt=attempt, more=lambda count: [task(next(following)) for _ in range(count)], wanted=wanted, rounds=rounds
    )
    return sizes, [g.key for g in everything], [g.key for g in mixed]


def test_as_many_further_tasks_are_tried_as_are_missing() -> None:
    sizes, everything, mixed = tried(4, 10)
    # Of 0 1 2 3 one is mixed; of 4 5 6 one; of 7 8 one; of 9 none; of 10 none; of 11 one.
    assert sizes == [4, 3, 2, 1, 1, 1]
    assert everything == [str(i) for i in range(12)]
    assert mixed == ["2", "5", "8", "11"]


def test_it_ends_with_its_rounds_and_draws_no_task_that_is_not_tried() -> None:
    sizes, everything, mixed = tried(4, 3)
    assert sizes == [4, 3, 2]
    assert (len(everything), mixed) == (9, ["2", "5", "8"])
    assert tried(4, 1)[0] == [4]


def test_a_batch_that_is_full_at_once_needs_no_more() -> None:
    assert tried(3, 5, every=1) == ([3], ["0", "1", "2"], ["0", "1", "2"])
