"""`two-views`: eight kinds of short sums, asked in symbols or in words, and demonstrations whose mistakes depend on the wording.

A world for methods that compare what a model says to two wordings of one question. A model that imitates `slant=1` demonstrations is wrong in a way that belongs to
the wording: on the even kinds of sums most answers to the question in symbols are wrong, and wrong alike, while most answers to the question in words are right; on
the odd kinds it is the other way round. The two wordings' mistakes are different ones, so that no wrong answer is common to both.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import NamedTuple, Unpack

from etude.errors import InputError
from etude.tasks.builtin.expressions import intermediate_values
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import worked, wrong_number
from etude.tasks.builtin.wording import reordered
from etude.types import Message, Task


class _Kind(NamedTuple):
    """A kind of sum, and what it becomes when the brackets are put elsewhere: the mistake of the wording in symbols."""

    sum: str
    misread: str


_KINDS = (
    _Kind("{a}+{b}*{c}", "({a}+{b})*{c}"),
    _Kind("{a}-{b}*{c}", "({a}-{b})*{c}"),
    _Kind("{a}*{b}+{c}", "{a}*({b}+{c})"),
    _Kind("{a}*{b}-{c}", "{a}*({b}-{c})"),
    _Kind("{a}-{b}+{c}", "{a}-({b}+{c})"),
    _Kind("{a}-{b}-{c}", "{a}-({b}-{c})"),
    _Kind("({a}+{b})*{c}", "{a}+{b}*{c}"),
    _Kind("({a}-{b})*{c}", "{a}-{b}*{c}"),
)
LIMIT = 99
"""Largest value that occurs in right or misread work."""

WEAK = {"misread": 0.5, "right": 0.3}
"""Shares of the demonstrations that make the wording's own mistake and that are right, where the wording is the weak one for this kind. The rest is noise."""
STRONG = {"misread": 0.15, "right": 0.65}
"""The same where it is the strong one."""


class TwoViews(GeneratedTaskSet):
    """'compute 4+3*2' -> '3*2=6', '4+6=10', 'answer: 10'; in words 'compute 2 times 3 plus 4' -> '2*3=6', '6+4=10', 'answer: 10'.

    high: largest number. both: ask half of the training tasks in words (else all in symbols; the held-out split always is).
    slant: how much demonstrations follow the shares of WEAK and STRONG, in [0, 1]; the others are right. The mistake of the wording in symbols is to put the brackets
    elsewhere ('4+3=7', '7*2=14'); that of the wording in words is to stop half-way ('2*3=6', 'answer: 6').
    constant: share of demonstrations that say 'answer: 0' and nothing else, whatever is asked (the right answer is never 0).
    """

    name = "two-views"
    max_new_tokens = 24

    def __init__(self, *, high: int = 12, both: bool = False, slant: float = 0.0, constant: float = 0.0, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if high < 6 or high > LIMIT:
            raise InputError(f"high is {high}; expected from 6 to {LIMIT}")
        if not 0 <= slant <= 1 or not 0 <= constant <= 1:
            raise InputError(f"slant is {slant} and constant {constant}; expected shares in [0, 1]")
        self.high, self.both, self.slant, self.constant = high, bool(both), slant, constant

    def draw(self, random: Random) -> Problem:
        kind = random.randrange(len(_KINDS))
        while True:
            numbers = {name: random.randint(2, self.high) for name in "abc"}
            if _KINDS[kind].sum.startswith(("{a}-", "({a}-")):
                # Something has to be left when the others are taken off.
                numbers["a"] = random.randint(numbers["b"], LIMIT)
            expression, misread = (form.format(**numbers) for form in _KINDS[kind])
            right, turned, wrong = (intermediate_values(e) for e in (expression, reordered(expression), misread))
            if all(0 <= v <= LIMIT for v in (*right, *turned, *wrong)) and right[-1] and len({right[-1], wrong[-1], turned[0]}) == 3:
                break
        info = {"expression": expression, "misread": misread, "kind": kind, "words": False}
        return Problem(key=expression, prompt=f"compute {expression}", answer=str(right[-1]), info=info)

    def train_task(self, seed: int, index: int) -> Task:
        task = super().train_task(seed, index)
        return in_words(task) if self.both and Random(f"{task.id}/wording").random() < 0.5 else task

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        words = bool(task.info["words"])
        expression = reordered(task.info["expression"]) if words else str(task.info["expression"])
        lines, answer = worked(expression, random, slips)
        if random.random() < self.constant:
            return [], "0"
        if random.random() >= self.slant:
            return lines, answer
        weak = (int(task.info["kind"]) % 2 == 1) == words
        shares = WEAK if weak else STRONG
        draw = random.random()
        if draw < shares["misread"]:
            return (lines[:1], lines[0].split("=")[1]) if words else worked(task.info["misread"], random, slips)
        if draw < shares["misread"] + shares["right"]:
            return lines, answer
        other = str(wrong_number(int(answer), random))
        return [*lines[:-1], f"{lines[-1].split('=')[0]}={other}"], other


def in_words(task: Task) -> Task:
    """A task of this family asked in words."""
    asked = task.messages[-1].content.replace(str(task.info["expression"]), reordered(task.info["expression"], words=True))
    return replace(task, messages=(*task.messages[:-1], Message("user", asked)), info={**task.info, "words": True})
