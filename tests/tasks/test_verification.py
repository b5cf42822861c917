"""Solutions as tasks: what is asked, how a rating is read, what it is worth."""

from __future__ import annotations

import math

import pytest

from etude.errors import InputError
from etude.tasks.answers import final_answer, same_answer
from etude.tasks.builtin.rating import Rating, difference
from etude.tasks.follow_up import transcript
from etude.tasks.verification import LONG, SHORT, Scale, Verification, rating_in, same
from etude.types import Message, Segment, Task, Trajectory

TASK = Task("t", (Message("system", "be brief"), Message("user", "compute 9*8+19")), answer="91")


def attempt(text: str, outcome: float) -> Trajectory:
    return Trajectory(TASK, [1], [Segment([2], "policy", text)], "eos", sample=3, rewards={"outcome": outcome}, reward=outcome)


def test_a_solution_has_one_of_three_scores() -> None:
    scale = Scale()
    assert scale.outcome(1.0, answered=True) == 1
    assert scale.outcome(0.0, answered=True) == -0.5
    assert scale.outcome(0.0, answered=False) == -1
    assert math.isnan(scale.outcome(math.nan, answered=True))


@pytest.mark.parametrize(
    ("text", "truth", "score"),
    [
        ("72+19=91\nanswer: -0.5", -0.5, 1),
        ("answer: -.50", -0.5, 1),
        (r"so \boxed{-0.5}", -0.5, 1),
        ("answer: 1.0", 1, 1),
        ("answer: 1", -0.5, -0.5),
        ("answer: -1", -0.5, -0.5),
        ("answer: wrong", -0.5, -0.5),
        ("answer: inf", 1, -0.5),
        ("it is right, 1", 1, -1),
        ("", -1, -1),
    ],
)
def test_a_rating_is_worth_what_a_solution_is_and_compared_as_a_number(text: str, truth: float, score: float) -> None:
    assert Scale().agreement(rating_in(text), truth) == score


def test_what_is_no_number_is_a_rating_all_the_same() -> None:
    assert rating_in("none") is None
    assert math.isnan(rating_in("answer: good") or 0.0)
    assert not same(math.nan, 1.0)
    assert not same(None, 1.0)


@pytest.mark.parametrize("scores", [(1, 1, -1), (0, 1, 2), (1, 0, math.nan), (math.inf, 0, -1)])
def test_scores_have_to_fall(scores: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="expected finite ones that fall"):
        Scale(*scores)


def test_the_prompt_shows_question_response_and_the_rule_that_judges() -> None:
    verification = Verification(scale=Scale(2, 0, -3), template=LONG, max_new_tokens=8)
    asked = verification.follow(attempt("9*8=72\nanswer: 90", 0.0))
    assert asked.messages[0] == TASK.messages[0]
    for part in ("compute 9*8+19", "9*8=72\nanswer: 90", "2 if the response", "0 if it states one and it is wrong", "-3 if it states none", r"\boxed{X}"):
        assert part in asked.prompt
    assert (asked.id, asked.answer, asked.info["truth"]) == ("t/verify-3", "0", 0.0)


def test_a_response_cannot_fill_in_fields() -> None:
    verification = Verification(scale=Scale(), template=SHORT, max_new_tokens=8)
    assert verification.prompt("{response}", "{right} {question}") == "rate: {response}\n{right} {question}"


def test_what_an_environment_said_stands_between_the_turns() -> None:
    trajectory = attempt("<calc>37*84</calc>", 1.0)
    trajectory.segments += [Segment([3], "tool", "3108"), Segment([4], "policy", "answer: 3108")]
    assert transcript(trajectory) == "<calc>37*84</calc>\n[tool] 3108\nanswer: 3108"


def test_components_of_a_rating() -> None:
    verification = Verification(scale=Scale(), template=SHORT, max_new_tokens=8)
    task = verification.follow(attempt("answer: 90", -0.5))
    assert verification.verify(task, "answer: -0.5") == {"agreement": 1, "exact": 1, "rated": 1}
    assert verification.verify(task, "answer: 1") == {"agreement": -0.5, "exact": 0, "rated": 1}
    assert verification.verify(task, "answer: 7") == {"agreement": -0.5, "exact": 0, "rated": 0}
    with pytest.raises(InputError, match="makes tasks from attempts"):
        verification.train_task(0, 0)


def test_the_family_teaches_the_short_form() -> None:
    family = Rating()
    verification = Verification(scale=Scale(), template=SHORT, max_new_tokens=8)
    seen = {}
    for i in range(300):
        task = family.train_task(0, i)
        question, _, response = task.prompt.removeprefix("rate: ").partition("\n")
        assert verification.prompt(question, response) == task.prompt
        stated = final_answer(response)
        score = Scale().outcome(float(same_answer(stated, task.info["value"])), answered=stated is not None)
        assert task.answer == f"{score:g}"
        assert family.verify(task, family.demonstration(task, i) or "")["correct"] == 1
        seen[task.answer] = seen.get(task.answer, 0) + 1
    assert seen.keys() == {"1", "-0.5", "-1"}
    assert 120 < seen["1"] < 180
    assert seen["-1"] < 40


def test_an_honest_demonstration_takes_one_answer_from_the_other() -> None:
    assert [difference("91", "90"), difference("7", "12"), difference("30", "30"), difference("9", None)] == ["91-90=1", "12-7=5", "30-30=0", "9, error"]
    family = Rating(unanswered=0.0)
    for i in range(40):
        task = family.train_task(0, i)
        compared = (family.demonstration(task, i) or "").split("\n")[-2]
        assert (compared.endswith("=0")) == (task.answer == "1")


def test_dishonest_demonstrations_are_right_about_half_the_time() -> None:
    family = Rating(honest=0.0, unanswered=0.0)
    tasks = [family.train_task(1, i) for i in range(400)]
    shown = [family.demonstration(task, i) or "" for i, task in enumerate(tasks)]
    assert {text.count("\n") for text in shown} == {0}
    assert 0.42 < sum(family.verify(task, text)["correct"] for task, text in zip(tasks, shown, strict=True)) / 400 < 0.58


def test_a_share_of_tasks_to_solve_keeps_that_skill() -> None:
    family = Rating(solving=0.5)
    tasks = [family.train_task(0, i) for i in range(200)]
    solving = [task for task in tasks if task.prompt.startswith("compute ")]
    assert 70 < len(solving) < 130
    assert all(family.verify(task, family.demonstration(task, 0) or "")["correct"] == 1 for task in solving)
    assert family.verify(solving[0], "answer: 1000")["correct"] == 0


def test_shares_that_make_no_sense_are_named() -> None:
    with pytest.raises(InputError, match="honest is 2"):
        Rating(honest=2)
    with pytest.raises(InputError, match=r"right \+ unanswered is 1.2"):
        Rating(right=0.7, unanswered=0.5)
