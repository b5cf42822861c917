"""Subset sums: grades, the gap, lessons, and steps from the newest attempt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from etude.errors import InputError
from etude.tasks.builtin.subset_target import SubsetTarget, total
from etude.tasks.iterates import named_request, next_step
from etude.tasks.user_reward import RewardedTaskSet, RewardFunction
from etude.types import Message, Task

TASK = Task("t", (Message("user", "make 020 from 05 07 15 30"),), answer="1010", info={"numbers": [5, 7, 15, 30], "target": 20})


@pytest.mark.parametrize(
    ("text", "correct", "quality", "feedback"),
    [
        ("answer: 1010", 1.0, 1.0, "gap +000"),
        ("answer: 0110", 0.0, 0.9, "gap -002"),
        ("answer: 1000", 0.0, 0.25, "gap +015"),
        ("answer: 1111", 0.0, 0.0, "gap -037"),
        ("answer: 101", 0.0, 0.0, "error"),
        ("answer: 5+15", 0.0, 0.0, "error"),
        ("1010", 0.0, 0.0, "error"),
    ],
)
def test_answers_are_graded_by_how_much_they_miss(text: str, correct: float, quality: float, feedback: str) -> None:
    found = SubsetTarget(numbers=4).verify(TASK, text)
    assert (found["correct"], found["quality"]) == (correct, pytest.approx(quality))
    assert SubsetTarget(numbers=4).feedback(TASK, text) == feedback


def test_a_step_shows_the_newest_attempt_and_its_gap_also_under_a_reward_of_ones_own() -> None:
    task_set = RewardedTaskSet(SubsetTarget(numbers=4), RewardFunction(lambda task, text: 1.0, "mine"))
    first = next_step(TASK, "answer: 1000", named_request("short", "--improve-request", "improve"), task_set, author="buffer")
    again = next_step(first, "answer: 0110", "of {question}: {feedback}", task_set, author="buffer")
    assert [(m.role, m.content) for m in first.opening[1:]] == [("assistant", "answer: 1000"), ("user", "check and fix gap +015")]
    assert [(m.role, m.content) for m in again.opening[1:]] == [("assistant", "answer: 0110"), ("user", "of make 020 from 05 07 15 30: gap -002")]


def test_lessons_show_first_attempts_that_miss_and_steps_of_which_half_are_for_the_worse() -> None:
    school, kinds, better, left = SubsetTarget(lessons=True), Counter(), [], []
    for i in range(600):
        task = school.train_task(0, i)
        shown = school.demonstration(task, 0)
        assert shown is not None
        gap = school.gap(task, shown)
        assert gap is not None
        kinds[task.messages[-1].content.split()[0] if len(task.messages) == 3 else "first"] += 1
        if len(task.messages) == 3:
            before = school.gap(task, task.messages[1].content)
            assert before is not None
            if before or task.messages[-1].content.startswith("unique"):
                better.append(abs(gap) < abs(before))
            else:
                left.append(shown == task.messages[1].content)
    assert {name: count / 600 for name, count in kinds.items()} == pytest.approx({"first": 0.25, "check": 0.375, "unique": 0.375}, abs=0.06)
    assert sum(better) / len(better) == pytest.approx(0.5, abs=0.08)
    assert len(left) / 600 == pytest.approx(0.375 / 4, abs=0.04)
    assert sum(left) / len(left) == pytest.approx(0.5, abs=0.2)


def test_with_moves_a_step_says_which_way_it_goes_and_lessons_go_either_way_equally_often() -> None:
    school, said, towards, left, shown_as_steps = SubsetTarget(lessons=True, moves=True), Counter(), [], [], []
    for i in range(900):
        task = school.train_task(0, i)
        text = school.demonstration(task, 0)
        assert text is not None
        if len(task.messages) == 1:
            assert text.startswith("answer: "), "a first attempt has nothing to move from"
            continue
        asked, before, after = task.messages[-1].content, school.gap(task, task.messages[1].content), school.gap(task, text)
        assert before is not None
        assert after is not None
        name, change = text.splitlines()[0], before - after
        assert name == ("+" if change > 0 else "-" if change < 0 else "=")
        assert school.verify(task, text)["format"] == 1.0
        said[name] += 1
        shown_as_steps.append(task.messages[1].content[0] in "+-=")
        digits = [t.splitlines()[-1].removeprefix("answer: ") for t in (task.messages[1].content, text)]
        turned = sum(a != b for a, b in zip(*digits, strict=True))
        if asked.startswith("check") and not before:
            left.append(turned == 0)
        elif asked.startswith("check"):
            assert turned == 1
            towards.append(change * before > 0)
    assert sum(towards) / len(towards) == pytest.approx(0.5, abs=0.1)
    assert sum(left) / len(left) == pytest.approx(0.5, abs=0.2)
    assert sum(shown_as_steps) / len(shown_as_steps) == pytest.approx(0.5, abs=0.08)
    assert said["="] <= sum(left) + 2, "hardly anything but a right attempt is left as it is"


def test_a_move_is_not_graded_and_has_room() -> None:
    plain, moves = SubsetTarget(numbers=4), SubsetTarget(numbers=4, moves=True)
    assert moves.verify(TASK, "-\nanswer: 1010") == plain.verify(TASK, "answer: 1010")
    assert moves.feedback(TASK, "+\nanswer: 1000") == "gap +015"
    assert moves.max_new_tokens == plain.max_new_tokens + 2


def test_what_is_asked_for_must_make_sense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sums of three digits"):
        SubsetTarget(numbers=11, high=99)
    (tmp_path / "mine.txt").write_text("again, {answer}")
    with pytest.raises(InputError, match="unknown field"):
        named_request(str(tmp_path / "mine.txt"), "--improve-request", "improve")


def test_single_steps_in_the_direction_of_the_gap_go_far() -> None:
    """What a policy reaches in 16 steps that takes or leaves any one number in the right direction, and stops when it is there: the world is worth many steps."""
    tasks, random = SubsetTarget(high=9), Random(0)
    reached = 0
    for i in range(600):
        task = tasks.train_task(0, i)
        given, target = task.info["numbers"], task.info["target"]
        taken = [random.randint(0, 1) for _ in given]
        for _ in range(16):
            gap = target - total(given, taken)
            if not gap:
                break
            places = [place for place, digit in enumerate(taken) if digit == (0 if gap > 0 else 1)]
            place = random.choice(places)
            taken[place] = 1 - taken[place]
        reached += total(given, taken) == target
    assert reached / 600 == pytest.approx(0.76, abs=0.05)
