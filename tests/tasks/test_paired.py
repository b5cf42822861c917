"""Questions with options: where options come from, in which order they stand, and what a text chooses."""

from __future__ import annotations

from random import Random

import pytest

from etude.errors import InputError
from etude.tasks.base import TaskSet
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.loading import load_tasks
from etude.tasks.paired import PairedItem, letter_in, near_misses, paired_items
from etude.tasks.paired_prompts import SCRIPTS, script_of
from etude.types import Message, Task

ARITHMETIC = load_tasks("arithmetic")
ITEM = PairedItem(Task("t", (Message("user", "quick: 9*8+19"),), "91"), ("81", "91", "19", "92"), 1)


def task(answer: str, options: object = None) -> Task:
    return Task("own", (Message("user", "which?"),), answer, {} if options is None else {"options": options})


def test_made_options_hold_the_answer_once_and_keep_their_order() -> None:
    tasks = ARITHMETIC.held_out()[:60]
    items = paired_items(ARITHMETIC, tasks, options=4, seed=1)
    assert items == paired_items(ARITHMETIC, tasks, options=4, seed=1)
    assert all(len(set(item.options)) == 4 and item.options[item.gold] == item.task.answer for item in items)
    assert [sum(ARITHMETIC.verify(i.task, f"answer: {o}")["correct"] for o in i.options) for i in items] == [1.0] * 60
    assert {item.gold for item in items} == {0, 1, 2, 3}


@pytest.mark.parametrize(("answer", "options"), [("Paris", ["Rome", "Paris", "Oslo"]), ("B", ["Rome", "Paris", "Oslo"]), (" paris.", ["Rome", "Paris"])])
def test_options_of_ones_own_are_named_by_text_or_letter(answer: str, options: list[str]) -> None:
    (item,) = paired_items(ARITHMETIC, [task(answer, options)])
    assert (item.options[item.gold], item.task.answer, sorted(item.options)) == ("Paris", "Paris", sorted(options))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (task("Rome", ["Paris", "Oslo"]), "none of its options"),
        (task("a", ["a"]), "expected a list of 2"),
        (task("a", ["a", "A "]), "two are the same"),
        (Task("own", (Message("user", "?"),)), "has no answer"),
        (task("0"), "near misses can be made"),
    ],
)
def test_options_that_cannot_be_used_are_named(given: Task, said: str) -> None:
    class Lenient(Arithmetic):  # A verifier that takes anything has no near misses.
        def verify(self, task: Task, text: str) -> dict[str, float]:
            return {"correct": 1.0}

    with pytest.raises(InputError, match=said):
        paired_items(Lenient(), [given])


@pytest.mark.parametrize(("reference", "kind"), [("3.50", str), ("rudo beki lasha", str), ("abcd", str)])
def test_near_misses_of_other_answers_than_whole_numbers(reference: str, kind: type) -> None:
    class Exact(Arithmetic):
        def judge(self, task: Task, answer: str) -> bool:
            return answer == reference

    exact: TaskSet = Exact()
    made = near_misses(exact, task(reference), reference, 3, Random(0))
    assert len(set(made)) == 3
    assert reference not in made
    assert all(len(m.split()) == 1 or set(m.split()) <= set(reference.split()) for m in made)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("answer: B", "B"),
        ("so it is\nanswer: (c)", "C"),
        ("answer: D) 92", "D"),
        ("b.", "B"),
        ("Option a", "A"),
        (r"\boxed{D}", "D"),
        ("answer: 91", "B"),
        ("answer: E", None),
        ("A good question", None),
        ("answer: 77", None),
        ("A\nno idea", None),
        ("", None),
    ],
)
def test_the_letter_in_a_text(text: str, letter: str | None) -> None:
    assert letter_in(text, ITEM) == letter


def test_what_is_said() -> None:
    start = SCRIPTS["standard"].start(ITEM, "choice", "cot")[-1].content
    again = SCRIPTS["standard"].request(ITEM, "choice", "baseline").content
    assert "9*8+19" in start
    assert "B) 91" in start
    assert "step by step" in start
    assert "B) 91" in again
    assert "nothing else" in again
    assert SCRIPTS["short"].start(ITEM, "generation", "baseline")[-1].content == "quick: 9*8+19"
    assert "A)" not in SCRIPTS["standard"].request(ITEM, "generation", "baseline").content
    with pytest.raises(InputError, match="cot would be baseline"):
        script_of("short", None, ["cot"])
