"""Curricula of questions in two wordings."""

from __future__ import annotations

import json

import pytest

from etude.errors import InputError
from etude.memory import PairedCurriculum, RoundsCurriculum
from etude.tasks.twins import twin_of, with_twin
from etude.types import Message, Task

TASKS = [Task(f"t{i}", (Message("user", f"{i}"),)) for i in range(6)]


def even_only(task: Task) -> Task | None:
    return with_twin(task, f"number {task.prompt}") if int(task.prompt) % 2 == 0 else None


def test_what_has_no_other_wording_is_left_out_with_its_twin() -> None:
    curriculum = PairedCurriculum(RoundsCurriculum(TASKS, 3), even_only)
    tasks = curriculum.next(6)
    assert {t.id for t in tasks} == {"t0", "t2", "t4"}
    assert all(twin_of(t).prompt == f"number {t.prompt}" for t in tasks)
    assert curriculum.left_out > 0


def test_a_pair_of_which_one_is_too_long_is_left_out() -> None:
    curriculum = PairedCurriculum(RoundsCurriculum(TASKS, 0), even_only, fits=lambda task: task.id != "t4")
    assert {t.id for t in curriculum.next(8)} == {"t0", "t2"}


def test_it_goes_on_from_its_state() -> None:
    first = PairedCurriculum(RoundsCurriculum(TASKS, 1), even_only)
    first.next(4)
    state = json.loads(json.dumps(first.state()))
    second = PairedCurriculum(RoundsCurriculum(TASKS, 1), even_only)
    second.load_state(state)
    assert (second.next(7), second.left_out) == (first.next(7), first.left_out)


def test_tasks_that_cannot_be_rewritten_are_refused_in_the_end() -> None:
    with pytest.raises(InputError, match="of 128 tasks 0 have another wording"):
        PairedCurriculum(RoundsCurriculum(TASKS, 0), lambda task: None).next(2)


def test_every_round_has_all_tasks_in_an_order_of_its_own() -> None:
    curriculum = RoundsCurriculum(TASKS, 0)
    rounds = [[t.id for t in curriculum.next(6)] for _ in range(4)]
    assert all(sorted(r) == [t.id for t in TASKS] for r in rounds)
    assert len(set(map(tuple, rounds))) > 1
    with pytest.raises(InputError, match="no tasks"):
        RoundsCurriculum([], 0)
