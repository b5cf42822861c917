"""Verdicts of single families, by hand."""

from __future__ import annotations

import pytest

from etude.errors import InputError
from etude.rewards import judge
from etude.tasks.builtin.calculator import Calculator, calculate
from etude.tasks.builtin.check_and_fix import REQUEST, CheckAndFix
from etude.tasks.builtin.compare import Compare
from etude.tasks.builtin.countdown import Countdown
from etude.tasks.builtin.lists import Lists
from etude.tasks.builtin.operations import Operations
from etude.tasks.builtin.strings import Strings
from etude.tasks.builtin.translation import TAVI, ZOMU, Meaning, Phrase, Translation
from etude.tasks.revisions import VERDICTS
from etude.types import Message, Segment, Task, Trajectory


def task(answer: str, **info) -> Task:
    return Task(id="t", messages=(Message("user", "?"),), answer=answer, info=info)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("7+3*2", True),
        ("3*2+7", True),
        ("(3*2)+7=13", True),
        ("13", False),
        ("7+7-1", False),
        ("7+3+2", False),
        ("7*3*2/2", False),
        ("3*2--7", False),
        ("7+3*2+0", False),
        ("make 13", False),
    ],
)
def test_countdown_takes_any_expression_that_uses_each_number_once(answer: str, right: bool) -> None:
    problem = task("7+3*2", numbers=[3, 7, 2], target=13)
    assert Countdown().judge(problem, answer) is right


@pytest.mark.parametrize(
    ("answer", "right"), [("9 7", True), ("[9, 7]", True), ("9,7", True), ("9.0 7", True), ("97", False), ("7 9", False), ("9 7 1", False)]
)
def test_lists_do_not_care_how_they_are_written(answer: str, right: bool) -> None:
    assert Lists().judge(task("9 7"), answer) is right


@pytest.mark.parametrize(
    ("family", "operation", "argument", "items", "result"),
    [
        (Lists, "reverse", "", "4 1 7", "7 1 4"),
        (Lists, "sort", "", "4 10 7", "4 7 10"),
        (Lists, "unique", "", "4 1 4 1", "4 1"),
        (Lists, "take ", "2", "4 1 7", "4 1"),
        (Lists, "drop ", "2", "4 1 7", "7"),
        (Lists, "add ", "3", "4 9", "7 12"),
        (Lists, "sum", "", "4 9 8", "21"),
        (Lists, "max", "", "4 9 10", "10"),
        (Lists, "min", "", "4 9 10", "4"),
        (Lists, "count", "", "4 9 10", "3"),
        (Strings, "reverse", "", "abc", "cba"),
        (Strings, "sort", "", "cab", "abc"),
        (Strings, "rotate", "", "abc", "bca"),
        (Strings, "swap ends", "", "abcd", "dbca"),
        (Strings, "swap ends", "", "a", "a"),
        (Strings, "double", "", "ab", "aabb"),
        (Strings, "first ", "2", "abc", "ab"),
        (Strings, "last ", "2", "abc", "bc"),
        (Strings, "drop ", "a", "aba", "b"),
        (Strings, "vowels", "", "abei", "aei"),
        (Strings, "next", "", "az", "ba"),
    ],
)
def test_operations(family: type[Operations], operation: str, argument: str, items: str, result: str) -> None:
    start = items.split() if family is Lists else list(items)
    assert family().write(family.operations[operation](start, argument)) == result


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("largest", "111"),
        ("smallest", "9"),
        ("second largest", "40"),
        ("second smallest", "12"),
        ("order up", "9 12 40 111"),
        ("order down", "111 40 12 9"),
    ],
)
def test_compare_orders_by_value_not_by_spelling(kind: str, answer: str) -> None:
    from random import Random

    _, given = Compare().work(task("", kind=kind, numbers=["40", "9", "111", "12"]), Random(0), 0.0)
    assert given == answer


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("37*84", "3108"),
        ("5-9", "-4"),
        ("7/2", "3.5"),
        ("1/8", "0.125"),
        ("1/3", "1/3"),
        ("-1/4", "-0.25"),
        ("2.5+2.5", "5"),
        (" 3 + 4 ", "7"),
        ("7/0", "error"),
        ("1+2+3", "error"),
        ("2**9", "error"),
        ("", "error"),
        ("print(1)", "error"),
    ],
)
def test_the_calculator_takes_one_operation_at_a_time(call: str, said: str) -> None:
    assert calculate(call) == said


def test_a_calculator_episode_ends_with_the_first_turn_without_a_call() -> None:
    problem = task("91", expression="9*8+19")
    environment = Calculator().environment()
    assert environment.reset(problem) == problem.messages
    assert environment.step("<calc>9*8</calc>").messages == (Message("tool", "72"),)
    failed = environment.step("<calc>9*</calc>")
    assert failed.messages == (Message("tool", "error"),)
    assert (failed.info["tool_calls"], failed.info["tool_errors"]) == (1, 1)
    last = environment.step("answer: 91")
    assert (last.done, last.reward, last.info) == (True, 1.0, {"correct": 1.0, "format": 1.0, "calls": 2})


def test_a_calculator_episode_does_not_go_on_for_ever() -> None:
    task_set = Calculator(terms=2)
    environment = task_set.environment()
    environment.reset(task("4", expression="2+2"))
    steps = [environment.step("<calc>2+2</calc>") for _ in range(task_set.max_turns)]
    assert [s.done for s in steps] == [False, False, True]
    assert steps[-1].reward == 0.0


def test_check_and_fix_asks_once_and_grades_both_answers() -> None:
    task_set = CheckAndFix()
    environment = task_set.environment()
    environment.reset(task("91", expression="9*8+19"))
    assert environment.step("answer: 91").messages == (REQUEST,)
    assert environment.step("answer: 90").done
    turns = [Segment([], "policy", "answer: 91"), Segment([], "environment", REQUEST.content), Segment([], "policy", "answer: 90")]
    spoilt = Trajectory(task("91", expression="9*8+19"), [], turns, "environment", tags={"environment_reward": 0.0})
    judge([spoilt], task_set)
    assert (spoilt.reward, spoilt.correct, spoilt.tags[VERDICTS], [s.reward for s in turns]) == (0.0, 0.0, [1.0, 0.0], [1.0, 0.0, 0.0])


RED_FOXES_SAW_OWL = Meaning(Phrase("fox", True, "red"), "see", Phrase("owl", False, None), past=True)


def test_the_two_languages_say_the_same_thing_differently() -> None:
    assert TAVI.say(RED_FOXES_SAW_OWL) == "yeni rudo-en vel-ak beki"
    assert ZOMU.say(RED_FOXES_SAW_OWL) == "ka-ibo paro u-chim rond"
    assert TAVI.read("yeni rudo-en vel-ak beki") == ZOMU.read("ka-ibo paro u-chim rond") == RED_FOXES_SAW_OWL


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("ka-ibo paro u-chim rond", True),
        ("Ka-ibo  paro u-chim rond", True),
        ("ibo paro u-chim rond", False),  # not in the past
        ("ka-ibo paro chim rond", False),  # one fox
        ("ka-ibo u-chim rond paro", False),  # who saw whom
        ("ka-ibo paro rond u-chim", False),  # the owl is red
        ("ka-ibo paro u-chim", False),
        ("u-chim rond ka-ibo paro", False),  # the order of the other language
        ("yeni rudo-en vel-ak beki", False),
        ("ka-ibo paro u-chim rond rond", False),
        ("ka-ka-ibo paro u-chim rond", False),
        ("", False),
    ],
)
def test_only_the_exact_meaning_is_right(answer: str, right: bool) -> None:
    assert Translation().judge(task("ka-ibo paro u-chim rond", to="zomu"), answer) is right


def test_every_sentence_reads_back_to_its_meaning() -> None:
    task_set = Translation()
    for i in range(300):
        problem = task_set.train_task(0, i)
        source, target = (TAVI, ZOMU) if problem.info["to"] == "zomu" else (ZOMU, TAVI)
        meaning = source.read(problem.prompt.split(": ")[1])
        assert meaning is not None
        assert target.say(meaning) == problem.answer


def test_sloppy_demonstrations_fail_first_and_end_right_within_the_turns() -> None:
    family = Calculator(sloppy=1.0, spare_turns=2)
    for index in range(20):
        problem = family.train_task(0, index)
        environment = family.environment()
        environment.reset(problem)
        written = [m.content for m in family.conversation(problem, index) if m.role == "assistant"]
        steps = [environment.step(text) for text in written]
        assert len(steps) == family.max_turns == 5
        assert [s.info.get("tool_errors") for s in steps] == [1, 0, 1, 0, None]
        assert (steps[-1].done, steps[-1].reward) == (True, 1.0)
    # With one spare turn only one call can fail; the shipped family shows none that does.
    tried = [m.content for m in Calculator(sloppy=1.0).conversation(family.train_task(0, 0), 0) if m.role == "tool"]
    assert tried.count("error") == 1
    assert Calculator().max_turns == 4


@pytest.mark.parametrize(("options", "message"), [({"spare_turns": 0}, "spare_turns is 0"), ({"sloppy": 2.0}, "sloppy is 2.0; expected a share")])
def test_a_calculator_refuses_what_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Calculator(**options)  # type: ignore[arg-type]
