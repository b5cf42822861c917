"""Strategies: what answers come to, whose programs are run, and the world in which they differ."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from etude.errors import InputError
from etude.tasks.builtin.strategies import BEST, StrategyWorld
from etude.tasks.loading import load_tasks
from etude.tasks.strategies import SHORT, STANDARD, Strategic, Strategy, load_strategies, outcome, strategies_in, strategy_of
from etude.types import Message, Task


@pytest.mark.parametrize(
    ("text", "comes_to"),
    [
        ("pot: 9*8+19", "pot: 9*8+19\nanswer: 91"),
        ("pot: (5-9)*2", "pot: (5-9)*2\nanswer: -8"),
        ("pot: reverse 4 1 7", ""),
        ("pot: answer: 91", ""),
        ("pot: 1/0", ""),
        ("cot: 9*8=72\nanswer: 91", "cot: 9*8=72\nanswer: 91"),
        ("answer: 3", "answer: 3"),
    ],
)
def test_a_program_comes_to_what_it_gives(text: str, comes_to: str) -> None:
    assert outcome(text, SHORT) == comes_to


def test_python_programs_are_run_around_tasks_of_any_kind() -> None:
    tasks = load_tasks([{"prompt": "6 times 7?", "answer": "42"}, {"prompt": "2 and 2?", "answer": "4"}], env="strategies")
    assert isinstance(tasks, Strategic)
    assert strategies_in(tasks) == STANDARD
    task = Task("t", (Message("user", "6 times 7?"),), "42")
    tag = STANDARD[3].tag
    programs = {
        "<python>print('so')\nprint(6 * 7)</python>": 1,
        "<python>\n6 * 7</python>": 1,
        "```python\n6 * 7\n```": 1,
        "<python>1 / 0</python> answer: 42": 0,
        "": 0,
    }
    for program, right in programs.items():
        assert tasks.verify(task, tag + program)["correct"] == right, program
    assert tasks.answer_in(f"{tag}<python>print(41)</python>") == "41"
    assert tasks.verify(task, f"{STANDARD[1].tag}answer: 42")["correct"] == 1


def test_an_instruction_stands_before_the_question_or_around_it() -> None:
    task = Task("t", (Message("system", "s"), Message("user", "2+2?")))
    assert Strategy("a", "A: ", "Think.").asked(task)[1].content == "Think.\n\n2+2?"
    assert Strategy("a", "A: ", "Q: 1+1? A: 2 Q: {question}").asked(task)[1].content == "Q: 1+1? A: 2 Q: 2+2?"
    assert Strategy("a", "A: ").asked(task) == task.messages


def test_strategies_of_a_users_own(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("- {name: draw, tag: 'draw: ', instruction: Draw it.}\n- {name: code, tag: 'code: ', program: python}\n")
    assert load_strategies(str(file)) == (Strategy("draw", "draw: ", "Draw it."), Strategy("code", "code: ", "", "python"))
    for text, wrong in {
        "x: 1": "holds no list",
        "[{name: a}]": "has an entry",
        "[{name: a, tag: 'a: ', program: lisp}]": "for program one of python, calculator",
        "[{name: a, tag: a}, {name: a, tag: b}]": "two strategies of one name",
        "[{name: a, tag: a}, {name: b, tag: ab}]": "begins that of 'b'",
    }.items():
        file.write_text(text)
        with pytest.raises(InputError, match=wrong):
            load_strategies(str(file))
    with pytest.raises(InputError, match="which cannot be read"):
        load_strategies("nowhere.yaml")


CHAIN = {"kind": "chain", "start": "12-2", "operations": ["+9", "-4"]}
LIST = {"kind": "list", "start": "4 1 6", "operations": ["reverse", "+2"]}
LARGER = {"kind": "larger", "start": "max 5+6 9+3", "operations": ["-4"]}


@pytest.mark.parametrize(
    ("info", "answer", "texts"),
    [
        (
            CHAIN,
            "15",
            {
                "direct": "answer: 15",
                "cot": "12-2+9=19\n19-4=15\nanswer: 15",
                "l2m": "? 12-2=10\n? 10+9=19\n? 19-4=15\nanswer: 15",
                "pot": "12-2+9-4",
            },
        ),
        (LIST, "8 3 6", {"direct": "answer: 8 3 6", "cot": "6 1 4\n8 3 6\nanswer: 8 3 6", "l2m": "? 1: 8\n? 2: 3\n? 3: 6\nanswer: 8 3 6", "pot": ""}),
        (
            LARGER,
            "8",
            {
                "direct": "answer: 8",
                "cot": "max 5+6 9+3=12\n12-4=8\nanswer: 8",
                "l2m": "? 5+6=11\n? 9+3=12\n? max 11 12=12\n? 12-4=8\nanswer: 8",
                "pot": "",
            },
        ),
    ],
)
def test_what_a_strategy_can_do_lies_in_its_form(info: dict[str, Any], answer: str, texts: dict[str, str]) -> None:
    tasks, random = StrategyWorld(lessons=True), Random(0)
    task = Task("t", (Message("user", "compute"),), answer, info)
    for strategy in SHORT:
        text = tasks.lesson(task, strategy, random, right=True)
        # The calculator knows neither lists nor max.
        assert tasks.verify(task, text)["correct"] == bool(texts[strategy.name])
        assert not texts[strategy.name] or text == strategy.tag + texts[strategy.name]
        assert tasks.verify(task, tasks.lesson(task, strategy, random, right=False))["correct"] == 0


def test_lessons_show_every_strategy_alike_often_and_are_right_where_it_can_be() -> None:
    tasks = StrategyWorld(lessons=True, again=0.3)
    shown = Counter[tuple[str, str]]()
    for i in range(3000):
        task = tasks.train_task(0, i)
        text = tasks.demonstration(task, i)
        assert text is not None
        strategy = strategy_of(text, SHORT)
        assert strategy is not None
        assert strategy.name not in task.info.get("tried", ())
        shown[task.info["kind"], strategy.name] += 1
        assert tasks.verify(task, text)["correct"] == (strategy.name != "pot" or task.info["kind"] == "chain")
    assert all(shown[kind, strategy.name] == pytest.approx(250, abs=60) for kind in BEST for strategy in SHORT)


@pytest.mark.parametrize("lessons", [False, True])
def test_demonstrations_slip_as_often_as_is_said(lessons: bool) -> None:
    tasks = StrategyWorld(lessons=lessons, habit=1.0 if lessons else 0.0, slips=0.25)
    given = [(task, tasks.demonstration(task, i)) for i in range(1000) for task in [tasks.train_task(0, i)]]
    assert sum(tasks.verify(task, text or "")["correct"] for task, text in given) / len(given) == pytest.approx(0.75, abs=0.05)


def test_a_lesson_that_begins_again_shows_wrong_attempts_first() -> None:
    tasks = StrategyWorld(lessons=True, again=1.0)
    for i in range(100):
        task = tasks.train_task(1, i)
        given = [m.content for m in task.messages if m.role == "assistant"]
        assert [s.name for text in given if (s := strategy_of(text, SHORT))] == task.info["tried"]
        assert not any(tasks.verify(task, text)["correct"] for text in given)
    with pytest.raises(InputError, match="again and habit are shares of lessons"):
        StrategyWorld(again=0.5)


def test_a_habit_is_one_strategy_wherever_it_has_not_failed() -> None:
    tasks = StrategyWorld(lessons=True, again=0.5, habit=1.0)
    for i in range(60):
        task = tasks.train_task(2, i)
        text = tasks.demonstration(task, i)
        assert text is not None
        assert text.startswith("cot: ") == ("cot" not in task.info.get("tried", ()))
