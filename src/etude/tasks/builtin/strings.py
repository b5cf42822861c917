"""`strings`: operations on short strings of letters."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from etude.tasks.builtin.operations import Items, Operations
from etude.types import Task

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_VOWELS = "aeiou"


class Strings(Operations):
    """'rotate then drop b: abcde' -> 'bcdea', 'answer: cdea'. Items are letters."""

    name = "strings"
    max_new_tokens = 32
    instruction = "Apply the operations from left to right to the word, one line after each. End with a line 'answer: X'."
    operations = {  # noqa: RUF012 (declared ClassVar in the base)
        "reverse": lambda letters, _: letters[::-1],
        "sort": lambda letters, _: sorted(letters),
        "rotate": lambda letters, _: letters[1:] + letters[:1],
        "swap ends": lambda letters, _: [letters[-1], *letters[1:-1], letters[0]] if len(letters) > 1 else letters,
        "double": lambda letters, _: [c for letter in letters for c in (letter, letter)],
        "first ": lambda letters, n: letters[: int(n)],
        "last ": lambda letters, n: letters[-int(n) :],
        "drop ": lambda letters, letter: [c for c in letters if c != letter],
        "vowels": lambda letters, _: [c for c in letters if c in _VOWELS],
        "next": lambda letters, _: [_LETTERS[(_LETTERS.index(c) + 1) % 26] for c in letters],
    }
    # Doubling comes last, so that strings stay short.
    endings: ClassVar[frozenset[str]] = frozenset({"double"})

    def items(self, random: Random, count: int) -> Items:
        return [random.choice(_VOWELS if random.random() < 0.4 else _LETTERS) for _ in range(count)]

    def argument(self, operation: str, items: Items, random: Random) -> str:
        return random.choice(items) if operation == "drop " else str(random.randint(1, max(1, len(items) - 1)))

    def write(self, items: Sequence[str]) -> str:
        return "".join(items)

    def judge(self, task: Task, answer: str) -> bool:
        return answer.strip() == task.answer
