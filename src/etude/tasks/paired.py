"""One question in two formats: to be answered freely, and by choosing among options that hold the right answer and near misses of it.

Options come from the tasks themselves (a JSONL field `options`) or are made from the reference answer. Their order is drawn once an item and then kept, so that a model
that likes the first option gains nothing by it on average, and a choice that changes is a change of mind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from string import ascii_lowercase, ascii_uppercase
from typing import Literal, get_args

from etude.errors import InputError
from etude.tasks.answers import final_answer, normalise, same_answer
from etude.tasks.base import TaskSet
from etude.tasks.builtin.slips import slipped_sequence, wrong_number
from etude.types import Task

Form = Literal["generation", "choice"]
"""How a question is answered: freely, or by the letter of an option."""
FORMS: tuple[Form, ...] = get_args(Form)
MOST_DRAWS = 200
"""Draws of a near miss, after which an answer counts as having none."""
# "B", "(B)", "B) 42", "B. 42", "option b": one letter that stands by itself or is set off from what follows.
_LETTER = re.compile(r"(?:option|choice)?\s*[(\[]?([A-Za-z])(?:[)\].:]+.*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class PairedItem:
    """A task whose answer is also one of some options. gold: the right option's place, from 0."""

    task: Task
    options: tuple[str, ...]
    gold: int

    @property
    def lettered(self) -> str:
        """The options, one to a line: 'A) 91'."""
        return "\n".join(f"{letter}) {option}" for letter, option in zip(ascii_uppercase, self.options, strict=False))

    @property
    def keyed(self) -> str:
        """The options as a small model can read them, one to a line: '91=a'. What is looked up comes first, and small letters are letters that it knows."""
        return keyed(self.options)

    @property
    def letters(self) -> str:
        """The letters that can be chosen."""
        return ascii_uppercase[: len(self.options)]


def keyed(options: Sequence[object]) -> str:
    """Options, one to a line, each before its letter: '91=a'."""
    return "\n".join(f"{option}={letter}" for letter, option in zip(ascii_lowercase, options, strict=False))


def paired_items(task_set: TaskSet, tasks: Sequence[Task], *, options: int = 4, seed: int = 0) -> list[PairedItem]:
    """Each task with its options, in an order that `seed` and the task's id decide.

    options: how many there are where they are made here: the reference and near misses that the verifier finds wrong. A task's own `info["options"]` are taken as they
    are; its answer is then one of them, or the letter of one, and is the option's text afterwards. Raises InputError for a task that has no options and allows none.
    """
    if not 2 <= options <= len(ascii_uppercase):
        raise InputError(f"options is {options}; expected 2 to {len(ascii_uppercase)}, one letter each")
    return [_paired(task_set, task, options, Random(f"{seed}/{task.id}/options")) for task in tasks]


def _paired(task_set: TaskSet, task: Task, count: int, random: Random) -> PairedItem:
    given = task.info.get("options")
    if task.answer is None:
        raise InputError(f"task {task.id!r} has no answer, so that none of its options is the right one; add an answer")
    if given is None:
        reference = final_answer(task.answer) or task.answer
        shown, right = [reference, *near_misses(task_set, task, reference, count - 1, random)], 0
    else:
        shown, right = _given(task, given)
        task = replace(task, answer=shown[right])
    order = list(range(len(shown)))
    random.shuffle(order)
    return PairedItem(task, tuple(shown[i] for i in order), order.index(right))


def _given(task: Task, given: object) -> tuple[list[str], int]:
    """A task's own options, and which is right."""
    if not isinstance(given, (list, tuple)) or not 2 <= len(given) <= len(ascii_uppercase):
        raise InputError(f"the options of task {task.id!r} are {given!r}; expected a list of 2 to {len(ascii_uppercase)} texts")
    shown = [str(option) for option in given]
    if len({normalise(option) for option in shown}) < len(shown):
        raise InputError(f"the options of task {task.id!r} are {shown}, of which two are the same; expected different ones")
    answer = str(task.answer)
    right = [i for i, option in enumerate(shown) if same_answer(option, answer)]
    if not right and answer.strip().upper() in list(ascii_uppercase[: len(shown)]):
        right = [ascii_uppercase.index(answer.strip().upper())]
    if not right:
        raise InputError(f"the answer of task {task.id!r} is {answer!r}, which is none of its options {shown}; expected one of them, or its letter")
    return shown, right[0]


def near_misses(task_set: TaskSet, task: Task, reference: str, count: int, random: Random) -> list[str]:
    """Wrong answers that look like the right one: a number off by a slip, or a text with two neighbours exchanged, one dropped or one doubled.

    Raises InputError where there are not enough different ones that the task's verifier finds wrong.
    """
    found: list[str] = []
    for _ in range(MOST_DRAWS):
        if len(found) == count:
            return found
        made = _near(reference, random)
        if made and normalise(made) not in {normalise(other) for other in [reference, *found]}:
            verdict = task_set.verify(task, f"answer: {made}").get("correct", 0.0)
            if verdict < 0.5:
                found.append(made)
    raise InputError(
        f"task {task.id!r} has the answer {reference!r}, of which {len(found)} near misses can be made and {count} are wanted; ask for fewer options, or give every task "
        "a field `options`"
    )


def _near(reference: str, random: Random) -> str:
    bare = normalise(reference)
    if re.fullmatch(r"-?\d+", bare):
        return str(wrong_number(int(bare), random))
    if re.fullmatch(r"-?\d+\.\d+", bare):
        places = len(bare.partition(".")[2])
        return f"{wrong_number(int(bare.replace('.', '')), random) / 10**places:.{places}f}"
    words = reference.split()
    return " ".join(slipped_sequence(words, random)) if len(words) > 1 else "".join(slipped_sequence(reference, random))


def letter_in(text: str, item: PairedItem) -> str | None:
    """The letter that a text chooses, or None where it cannot be read.

    Read is the final answer, or without a marked one the last line: a letter, or the very text of one option.
    """
    lines = text.strip().splitlines()
    said = final_answer(text) or (lines[-1].strip() if lines else "")
    if not said:
        return None
    exact = [letter for letter, option in zip(item.letters, item.options, strict=True) if same_answer(said, option)]
    if exact and normalise(said) not in item.letters.lower():
        return exact[0]
    match = _LETTER.fullmatch(said.strip(" *`$\"'"))
    letter = match[1].upper() if match else ""
    return letter if letter and letter in item.letters else None
