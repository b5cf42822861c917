"""A language for programs that a model of one million parameters can write: `a=12-5;b=a+8;out b`.

Statements are parted by `;`. `name=x` and `name=x+y` (also `-` and `*`) store a whole number under a letter; `out x`, the last statement, gives one. An operand is a
number or a name that was stored before. There are no loops and no calls, so a program ends after as many operations as it has statements.
"""

from __future__ import annotations

import re

from etude.tasks.builtin.expressions import exact

FAILED = "error"
"""What running gives for text that is no program, reads a name that nothing was stored under, or comes to too large a number."""
LONGEST_PROGRAM = 200
"""Characters of a program that are looked at."""
LARGEST = 10**9
_OPERAND = r"(\d{1,9}|[a-z])"
_STORE = re.compile(rf"([a-z])={_OPERAND}(?:([-+*]){_OPERAND})?")
_OUT = re.compile(rf"out {_OPERAND}")
_NUMBER = re.compile(r"(?<![a-z\d])\d+")


def run_program(program: str) -> str:
    """What a program puts out: a whole number, or FAILED."""
    if len(program) > LONGEST_PROGRAM:
        return FAILED
    *stores, last = (part.strip() for part in program.strip().split(";"))
    stored: dict[str, int] = {}

    def value(operand: str) -> int:
        return int(operand) if operand.isdigit() else stored[operand]

    try:
        for store in stores:
            found = _STORE.fullmatch(store)
            if found is None:
                return FAILED
            name, left, symbol, right = found.groups()
            stored[name] = exact(value(left), symbol, value(right)) if symbol else value(left)
            if abs(stored[name]) > LARGEST:
                return FAILED
        out = _OUT.fullmatch(last)
        return FAILED if out is None else str(value(out[1]))
    except KeyError:
        return FAILED


def numbers_of(program: str) -> list[int]:
    """The numbers that stand in a program, in order."""
    return [int(number) for number in _NUMBER.findall(program)]
