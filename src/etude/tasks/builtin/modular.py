"""`modular`: the remainder of a sum, difference or product, with the division written out."""

from __future__ import annotations

from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.builtin.expressions import exact
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import slipping, wrong_number
from etude.types import Task


class Modular(GeneratedTaskSet):
    """'17+26 mod 7' -> '17+26=43', '43=7*6+1', 'answer: 1'.

    high: largest term of a sum or difference. factor_high: largest factor. modulus_high: largest modulus, at least 3.
    """

    name = "modular"
    max_new_tokens = 28
    instruction = "Give the remainder, between 0 and the modulus. Work in short steps, one to a line. End with a line 'answer: X'."

    def __init__(
        self,
        *,
        high: int = 40,
        factor_high: int = 9,
        modulus_high: int = 9,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(**options)
        if high < 2 or factor_high < 2 or modulus_high < 3:
            raise InputError(f"high is {high}, factor_high {factor_high}, modulus_high {modulus_high}; expected at least 2, 2 and 3")
        self.high, self.factor_high, self.modulus_high = high, factor_high, modulus_high
        self.max_new_tokens = 22 + 2 * len(str(2 * high))

    def draw(self, random: Random) -> Problem:
        symbol = random.choice("+-*")
        top = self.factor_high if symbol == "*" else self.high
        left, right = random.randint(2, top), random.randint(2, top)
        if symbol == "-":
            left, right = max(left, right), min(left, right)
        modulus = random.randint(3, self.modulus_high)
        text = f"{left}{symbol}{right} mod {modulus}"
        info = {"left": left, "symbol": symbol, "right": right, "modulus": modulus}
        return Problem(key=text, prompt=text, answer=str(exact(left, symbol, right) % modulus), info=info)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        left, symbol, right, modulus = (task.info[k] for k in ("left", "symbol", "right", "modulus"))
        value = slipping(random, slips)(left, symbol, right)
        quotient, rest = divmod(value, modulus)
        if random.random() < slips:
            if random.random() < 0.5 and quotient:
                # One multiple too few; the remainder that follows is too large.
                quotient, rest = quotient - 1, rest + modulus
            else:
                rest = wrong_number(rest, random)
        return [f"{left}{symbol}{right}={value}", f"{value}={modulus}*{quotient}+{rest}"], str(rest)
