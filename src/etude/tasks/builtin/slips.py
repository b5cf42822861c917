"""Mistakes as people make them, for imperfect demonstrations.

Each kind alone is rarer than the right step, so that a model which imitates them still finds the right step the most likely one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from etude.tasks.builtin.expressions import exact, work_through

Item = TypeVar("Item")


def wrong_number(value: int, random: Random) -> int:
    """A whole number near `value` but not equal to it: off by one, by two, by a carry, or with its digits turned round. Negative only if `value` is."""
    digits = str(abs(value))
    near = [value + 1, value - 1, value + 1, value - 1, value + 2, value - 2, value + 10, value - 10, int(digits[::-1]), value + random.randint(3, 9)]
    return random.choice([n for n in near if n != value and (n >= 0 or value < 0)])


def slipping(random: Random, rate: float) -> Callable[[int, str, int], int]:
    """A `compute` for `work_through` that is wrong with probability `rate`: a wrong number, or (one slip in six) the wrong operation."""

    def compute(left: int, symbol: str, right: int) -> int:
        result = exact(left, symbol, right)
        if random.random() >= rate:
            return result
        if random.random() < 1 / 6:
            other = exact(left, random.choice([s for s in "+-*" if s != symbol]), right)
            if other != result and 0 <= other <= 999:
                return other
        return wrong_number(result, random)

    return compute


def worked(expression: str, random: Random, rate: float) -> tuple[list[str], str]:
    """The written work and answer for an expression, wrong results included.

    Besides, the last step is left out, or its result miscopied, each with probability `rate` / 6.
    """
    lines, value = work_through(expression, slipping(random, rate))
    if len(lines) > 1 and random.random() < rate / 6:
        lines.pop()
        value = int(lines[-1].split("=")[1])
    if random.random() < rate / 6:
        value = wrong_number(value, random)
    return lines, str(value)


def slipped_sequence(items: Sequence[Item], random: Random) -> list[Item]:
    """A sequence with one mistake: an item dropped, doubled, or exchanged with its neighbour. Shorter than two items: one doubled."""
    out = list(items)
    if not out:
        return out
    place = random.randrange(len(out))
    kind = random.choice(("drop", "double", "exchange", "exchange")) if len(out) > 1 else "double"
    if kind == "drop":
        del out[place]
    elif kind == "double":
        out.insert(place, out[place])
    else:
        place = min(place, len(out) - 2)
        out[place], out[place + 1] = out[place + 1], out[place]
    return out
