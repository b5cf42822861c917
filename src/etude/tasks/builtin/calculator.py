"""`calculator`: expressions too large for the head, and a calculator that answers calls in a fixed syntax."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.expressions import evaluate, exact, work_through
from etude.tasks.builtin.generated import FamilyOptions
from etude.tasks.builtin.slips import wrong_number
from etude.types import Message, Task

_CALL = re.compile(r"<calc>(.*?)</calc>", re.DOTALL)
_PAIR = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([-+*/])\s*(-?\d+(?:\.\d+)?)\s*")

ERROR = "error"
"""What the calculator says to a call that it cannot read or compute."""


def calculate(call: str) -> str:
    """What the calculator answers: the value of one operation on two numbers as a whole number, a decimal where that is exact, else a fraction; or 'error'."""
    value = _value(call)
    return ERROR if value is None else plain_number(value)


def _value(call: str) -> Fraction | None:
    """The value of a call, or None for one that the calculator cannot read or compute."""
    if not _PAIR.fullmatch(call):
        return None
    try:
        return evaluate(call)
    except ValueError:
        return None


class Calculator(Arithmetic):
    """'use calc: 37*84+519' -> '<calc>37*84</calc>' -> tool '3108' -> '<calc>3108+519</calc>' -> tool '3627' -> 'answer: 3627'.

    The calculator takes one operation on two numbers at a time, and answers 'error' to anything else.

    spare_turns: turns beyond one a call and one for the answer (1 of which there always is), in which a call that failed can be made again.
    sloppy: share of demonstrated calls that are first made in a form that the calculator cannot read ('37*84=', '37*', '*84') and then properly, as far as there are
    spare turns. What imitates them comes to right answers by failed calls.
    """

    name = "calculator"
    prefix = "use calc: "
    max_turns = 4
    instruction = "A calculator answers one operation on two numbers at a time: write <calc>37*84</calc> and stop. When you have the value, write 'answer: X'."

    def __init__(
        self,
        *,
        terms: int = 3,
        high: int = 999,
        factor_high: int = 99,
        limit: int = 9999,
        spare_turns: int = 1,
        sloppy: float = 0.0,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(terms=terms, high=high, factor_high=factor_high, limit=limit, **options)
        if terms > 8:
            raise InputError(f"terms is {terms}; expected at most 8, one call for each operation")
        if spare_turns < 1:
            raise InputError(f"spare_turns is {spare_turns}; expected at least 1")
        if not 0 <= sloppy <= 1:
            raise InputError(f"sloppy is {sloppy}; expected a share in [0, 1]")
        self.spare_turns, self.sloppy = spare_turns, sloppy
        self.max_turns = terms + spare_turns
        # One call: two numbers, the operation, the brackets of the call and the end token, with room for a longer wrong one.
        self.max_new_tokens = 2 * len(str(limit)) + 8

    def environment(self) -> Environment:
        return CalculatorEnvironment(self, self.max_turns)

    def demonstration(self, task: Task, seed: int) -> str | None:
        """None: a single text cannot show a conversation with a tool. Use `conversation`."""
        return None

    def conversation(self, task: Task, seed: int) -> list[Message]:
        random = Random(f"{task.id}/conversation/{seed}")
        messages = list(task.messages)
        if random.random() < self.direct:
            guess = wrong_number(int(task.answer or 0), random)
            return [*messages, Message("assistant", f"answer: {guess}")]
        spare = self.spare_turns
        for step in range(self.terms - 1):
            left, symbol, right = self._next_operation(task, messages, step)
            if random.random() < self.slips:
                kind = random.choice(("operation", "left", "right", "order"))
                if kind == "operation":
                    symbol = random.choice([s for s in "+-*" if s != symbol])
                elif kind == "left":
                    left = _wrong_digits(left, random)
                elif kind == "right":
                    right = _wrong_digits(right, random)
                else:
                    left, right = right, left
            call = f"{left}{symbol}{right}"
            if self.sloppy and spare and random.random() < self.sloppy:
                spare -= 1
                tried = random.choice((f"{call}=", f"{left}{symbol}", f"{symbol}{right}"))
                messages += [Message("assistant", f"<calc>{tried}</calc>"), Message("tool", calculate(tried))]
            messages += [Message("assistant", f"<calc>{call}</calc>"), Message("tool", calculate(call))]
        answer = int(messages[-1].content)
        if random.random() < self.slips:
            answer = wrong_number(abs(answer), random)
        return [*messages, Message("assistant", self._written(random, [], str(answer)))]

    def _next_operation(self, task: Task, messages: Sequence[Message], step: int) -> tuple[int, str, int]:
        """The operation to call for, given what the calculator said so far, right or wrong."""
        said = [int(m.content) for m in messages if m.role == "tool" and m.content != ERROR]
        operations: list[tuple[int, str, int]] = []

        def compute(left: int, symbol: str, right: int) -> int:
            operations.append((left, symbol, right))
            return said[len(operations) - 1] if len(operations) <= len(said) else exact(left, symbol, right)

        work_through(task.info["expression"], compute)
        return operations[step]


class CalculatorEnvironment(Environment):
    """Answers each call with a tool message; ends with the first turn that makes none, or after `turns` turns."""

    def __init__(self, tasks: TaskSet, turns: int) -> None:
        self._tasks, self._turns = tasks, turns
        self._task: Task | None = None
        self._taken = 0
        self._calls = 0

    def reset(self, task: Task) -> Sequence[Message]:
        self._task = task
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        assert self._task is not None, "step before reset"
        self._taken += 1
        call = _CALL.search(text)
        if call is not None and self._taken < self._turns:
            self._calls += 1
            failed = _value(call[1]) is None
            return EnvironmentStep(messages=(Message("tool", calculate(call[1])),), info={"calls": self._calls, "tool_calls": 1, "tool_errors": int(failed)})
        verdict = self._tasks.verify(self._task, text)
        return EnvironmentStep(reward=verdict["correct"], done=True, info={**verdict, "calls": self._calls})

    def snapshot(self) -> tuple[Task | None, int, int]:
        return self._task, self._taken, self._calls

    def restore(self, state: tuple[Task | None, int, int]) -> None:
        self._task, self._taken, self._calls = state


def plain_number(value: Fraction) -> str:
    """A fraction as a whole number or a finite decimal where it is one."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return str(value)
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    sign = "-" if value < 0 else ""
    scaled = str(abs(int(value * 10**digits))).rjust(digits + 1, "0")
    return f"{sign}{scaled[:-digits]}.{scaled[-digits:]}"


def _wrong_digits(number: int, random: Random) -> int:
    """A number miscopied: one digit changed, dropped or exchanged with its neighbour."""
    digits = list(str(abs(number)))
    place = random.randrange(len(digits))
    if len(digits) > 1 and random.random() < 0.3:
        del digits[place]
    elif len(digits) > 1 and random.random() < 0.5:
        place = min(place, len(digits) - 2)
        digits[place], digits[place + 1] = digits[place + 1], digits[place]
    else:
        digits[place] = random.choice([d for d in "0123456789" if d != digits[place]])
    return int("".join(digits))
