"""`keyed-shift`: what its lessons tell, and what they keep to themselves."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from etude.errors import InputError
from etude.memory.exemplars import Exemplar, ExemplarStore, family_of, with_examples
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.generated import is_held_out
from etude.tasks.builtin.keyed_shift import OFFSETS, KeyedShift, shifted
from etude.types import Task


def lessons(count: int = 3000, **options: Any) -> list[Task]:
    school = KeyedShift(lessons=True, **options)
    return [school.train_task(0, i) for i in range(count)]


def offsets_in(work: str) -> tuple[int, int]:
    first, second, _ = work.split("\n")
    return int(first[2]), int(second[2])


def test_digits_are_shifted_modulo_ten() -> None:
    assert shifted("58", (2, 3), Random(0), 0.0) == (["5+2=7", "8+3=1"], "71")


def test_training_asks_for_either_kind_or_one() -> None:
    both, hard = KeyedShift(hard=3, half_known=2), KeyedShift(hard=3, half_known=2, only="hard")
    kinds = Counter(both.train_task(0, i).info["family"] in hard.keys["hard"] for i in range(500))
    assert kinds[True] / 500 == pytest.approx(0.6, abs=0.08)
    assert {hard.train_task(0, i).info["family"] for i in range(100)} == set(hard.keys["hard"])
    with pytest.raises(InputError, match="only is 'easy'"):
        builtin_task_sets()["keyed-shift"](only="easy")
    with pytest.raises(InputError, match="hard is 0"):
        KeyedShift(hard=0)


def test_lessons_never_name_a_hard_key_or_a_held_out_question() -> None:
    hard = KeyedShift().keys["hard"]
    for lesson in lessons():
        for asked in [m.content for m in lesson.messages if m.role == "user"]:
            assert not any(key in asked for key in hard)
            assert not is_held_out(f"keyed-shift {asked.replace(':', '')}")


def test_half_known_keys_are_told_as_often_as_said() -> None:
    half_known = KeyedShift().keys["half-known"]
    alone = [lesson for lesson in lessons(known=0.4) if len(lesson.messages) == 1 and lesson.info["family"] in half_known]
    right = [offsets_in(lesson.info["lesson"]) == OFFSETS[lesson.info["family"]] for lesson in alone]
    assert sum(right) / len(right) == pytest.approx(0.41, abs=0.05)


def test_examples_in_lessons_say_what_is_asked_and_look_like_those_of_a_run() -> None:
    followed = 0
    for lesson in lessons(300):
        *turns, question = lesson.messages
        shown = [Exemplar("", ask.content, answer.content, "", 0) for ask, answer in zip(turns[::2], turns[1::2], strict=True)]
        assert with_examples(Task("", (question,)), shown[::-1]) == lesson.messages
        own = [e for e in shown if e.question.startswith(str(lesson.info["family"]))]
        followed += bool(own)
        assert all(offsets_in(e.answer) == offsets_in(lesson.info["lesson"]) for e in own)
    assert followed > 100


def test_the_most_similar_questions_are_those_of_the_same_key() -> None:
    tasks = KeyedShift()
    pool = [tasks.train_task(0, i) for i in range(400)]
    store = ExemplarStore()
    for task in pool:
        store.add(task, "answer: 0", 1)
    assert all(e.family == family_of(task) for task in pool[:100] for e in store.similar(task, 2))
