"""`word-problems`: short stories about numbers, solved in written steps."""

from __future__ import annotations

from random import Random
from typing import NamedTuple, Unpack

from etude.errors import InputError
from etude.tasks.builtin.expressions import intermediate_values
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import worked
from etude.types import Task


class _Story(NamedTuple):
    text: str
    expression: str


_NAMES = ("tom", "ana", "kim", "lee")
_THINGS = ("apples", "pens", "coins", "books")
_STORIES = (
    _Story("{who} has {a} {what}, buys {b} and gives away {c}. how many left?", "{a}+{b}-{c}"),
    _Story("{who} has {a} {what}, loses {b} and finds {c}. how many now?", "{a}-{b}+{c}"),
    _Story("{f} boxes of {g} {what}, and {a} more. how many in all?", "{f}*{g}+{a}"),
    _Story("{f} boxes of {g} {what}, {who} takes {c}. how many left?", "{f}*{g}-{c}"),
    _Story("{who} has {a} {what} and buys {f} boxes of {g}. how many in all?", "{a}+{f}*{g}"),
    _Story("{who} has {a} {what}, {other} has {b} more. how many in all?", "{a}+{a}+{b}"),
)


class WordProblems(GeneratedTaskSet):
    """'tom has 12 pens, buys 5 and gives away 9. how many left?' -> '12+5=17', '17-9=8', 'answer: 8'.

    high: largest number in a story. factor_high: largest factor.
    """

    name = "word-problems"
    max_new_tokens = 28

    def __init__(self, *, high: int = 20, factor_high: int = 6, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if high < 3 or factor_high < 2:
            raise InputError(f"high is {high}, factor_high {factor_high}; expected at least 3 and 2")
        self.high, self.factor_high = high, factor_high
        digits = len(str(3 * high))
        self.max_new_tokens = 2 * (3 * digits + 3) + digits + 6

    def draw(self, random: Random) -> Problem:
        while True:
            story = random.choice(_STORIES)
            who, other = random.sample(_NAMES, 2)
            numbers = {name: random.randint(2, self.high) for name in "abc"} | {name: random.randint(2, self.factor_high) for name in "fg"}
            expression = story.expression.format(**numbers)
            values = intermediate_values(expression)
            if min(values) >= 0:
                break
        text = story.text.format(who=who, other=other, what=random.choice(_THINGS), **numbers)
        # Names and things do not make another problem: the story and its numbers do.
        key = f"word-problem {_STORIES.index(story)} {expression}"
        return Problem(key=key, prompt=text, answer=str(values[-1]), info={"expression": expression})

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        return worked(task.info["expression"], random, slips)
