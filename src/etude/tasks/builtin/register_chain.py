"""`register-chain`: a register goes through a row of operations modulo a small number, so that several wrong steps often end right again, and every step can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.answers import final_answer, normalise
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.first_error import FLAWLESS
from etude.types import Task


class RegisterChain(GeneratedTaskSet):
    """'mod 5: 3 +4*2+1' -> '3+4=2', '2*2=4', '4+1=0', 'answer: 0'.

    A chance answer is right one time in `modulus`, and so is one at the end of a way with several wrong steps (flawed positives). No factor is 0, so that a single wrong
    step is never forgotten.

    operations: how many, at least 1. modulus: a prime of one digit, at least 3.
    """

    name = "register-chain"
    instruction = (
        "Start with the first number and apply the operations one after another, each modulo the given number, one to a line. End with a line 'answer: X'."
    )

    def __init__(self, *, operations: int = 10, modulus: int = 5, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if operations < 1 or modulus not in (3, 5, 7):
            raise InputError(f"operations is {operations}, modulus {modulus}; expected at least 1, and 3, 5 or 7")
        self.operations, self.modulus = operations, modulus
        self.max_new_tokens = 6 * operations + 8

    def draw(self, random: Random) -> Problem:
        start = random.randrange(self.modulus)
        chain = [[symbol, random.randrange(1 if symbol == "+" else 2, self.modulus)] for symbol in random.choices("+*", k=self.operations)]
        value = start
        for symbol, number in chain:
            value = self._applied(value, symbol, number)
        prompt = f"mod {self.modulus}: {start} {''.join(f'{symbol}{number}' for symbol, number in chain)}"
        return Problem(key=f"{self.name} {prompt}", prompt=prompt, answer=str(value), info={"start": start, "chain": chain})

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        value, lines = task.info["start"], list[str]()
        for symbol, number in task.info["chain"]:
            result = self._applied(value, symbol, number)
            if random.random() < slips:
                result = random.choice([other for other in range(self.modulus) if other != result])
            lines.append(f"{value}{symbol}{number}={result}")
            value = result
        return lines, str(value)

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        """Exact: the first line that is not the next operation on the register as it is, with its result; or the answer's, where it comes early or says something else."""
        value, chain = task.info["start"], task.info["chain"]
        for number, step in enumerate(steps):
            if number == len(chain):
                given = final_answer(step)
                return FLAWLESS if given is not None and normalise(given) == str(value) and len(steps) == number + 1 else number
            symbol, operand = chain[number]
            result = self._applied(value, symbol, operand)
            if step != f"{value}{symbol}{operand}={result}":
                return number
            value = result
        return FLAWLESS

    def _applied(self, value: int, symbol: str, number: int) -> int:
        return (value + number if symbol == "+" else value * number) % self.modulus
