"""`arithmetic`: evaluate an expression in written steps, one operation to a line."""

from __future__ import annotations

from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.builtin.expressions import random_expression
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import worked
from etude.types import Task


class Arithmetic(GeneratedTaskSet):
    """'compute 9*8+19' -> '9*8=72', '72+19=91', 'answer: 91'.

    terms: numbers in an expression, at least 2. high: largest number; factor_high: largest factor. limit: largest intermediate value.
    """

    name = "arithmetic"
    prefix = "compute "
    max_new_tokens = 24

    def __init__(
        self,
        *,
        terms: int = 3,
        high: int = 30,
        factor_high: int = 9,
        limit: int = 99,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(**options)
        if terms < 2:
            raise InputError(f"terms is {terms}; expected at least 2")
        if high < 2 or factor_high < 2 or limit < 4:
            raise InputError(f"high is {high}, factor_high {factor_high}, limit {limit}; expected at least 2, 2 and 4")
        self.terms, self.high, self.factor_high, self.limit = terms, high, factor_high, limit
        if (terms, limit) != (3, 99):
            # A step is two numbers, an operation, '=', a result and a line end; then 'answer: ', the value and the end token.
            digits = len(str(limit))
            self.max_new_tokens = (terms - 1) * (3 * digits + 3) + digits + 4

    def draw(self, random: Random) -> Problem:
        expression = self.expression(random)
        # The key carries no family name: an expression held out here is held out of every family that is built on expressions.
        return Problem(key=expression, prompt=f"{self.prefix}{expression}", answer=worked(expression, random, 0.0)[1], info={"expression": expression})

    def expression(self, random: Random) -> str:
        """A random expression at this difficulty."""
        return random_expression(random, terms=self.terms, high=self.high, factor_high=self.factor_high, limit=self.limit)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        return worked(task.info["expression"], random, slips)
