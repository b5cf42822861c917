"""`commands`: what the words mean, and how teachers are mistaken about them."""

from __future__ import annotations

from collections import Counter

import pytest

from etude.errors import InputError
from etude.tasks.answers import final_answer
from etude.tasks.builtin.commands import COMMANDS, TEACHERS, WORDS, Commands, knows, moved


def test_words_move_digits_and_no_two_alike() -> None:
    assert moved(["4", "1", "7", "9"], "chim") == ["9", "7", "1", "4"]
    assert moved(["4", "1", "7", "9"], "paro") == ["1", "7", "9", "4"]
    assert len(set(COMMANDS.values())) == len(WORDS) == 8
    assert all(sorted(places) == [0, 1, 2, 3] for places in COMMANDS.values())


def test_every_word_is_known_by_one_teacher() -> None:
    assert [[t for t in range(TEACHERS) if knows(t, word)] for word in WORDS] == [[0], [0], [1], [1], [2], [2], [3], [3]]


@pytest.mark.parametrize(("mistakes", "different"), [("own", 4), ("shared", 1)])
def test_teachers_take_a_word_for_another_each_in_their_own_way_or_all_alike(mistakes, different: int) -> None:
    teachers = [Commands(teacher=t, mistakes=mistakes) for t in range(TEACHERS)]
    for word in WORDS:
        taken = {teacher.taken_for(word) for teacher in teachers}
        assert len(taken) == different
        assert word not in taken


def test_demonstrations_are_right_and_wrong_as_often_as_they_should_be() -> None:
    teacher = Commands(teacher=1, mistakes="shared", sure=0.8, right=0.1, wrong=0.6)
    kinds: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for i in range(2000):
        task = teacher.train_task(0, i)
        shown, word = final_answer(teacher.demonstration(task, 0) or ""), task.info["word"]
        mistaken = " ".join(moved(task.info["digits"], teacher.taken_for(word)))
        kinds[knows(1, word)]["right" if shown == task.answer else "mistaken" if shown == mistaken else "other"] += 1
    shares = {known: {kind: n / counts.total() for kind, n in counts.items()} for known, counts in kinds.items()}
    # An order at random is one of 24.
    assert shares[True]["right"] == pytest.approx(0.8 + 0.2 / 24, abs=0.05)
    assert shares[False]["right"] == pytest.approx(0.1 + 0.3 / 24, abs=0.03)
    assert shares[False]["mistaken"] == pytest.approx(0.6 + 0.3 / 24, abs=0.04)


def test_tasks_are_the_same_whoever_teaches() -> None:
    assert [Commands(teacher=t).train_task(3, 5) for t in range(-1, TEACHERS)] == [Commands().train_task(3, 5)] * 5


@pytest.mark.parametrize(
    ("options", "named"), [({"teacher": 4}, "teacher is 4"), ({"mistakes": "some"}, "mistakes is 'some'"), ({"right": 0.7}, "right 0.7 and wrong 0.475")]
)
def test_teachers_that_make_no_sense_are_named(options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Commands(**options)
