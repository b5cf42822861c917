r"""Final answers in free text: where they stand and when two of them are the same.

The convention is one line `answer: X`. What general models write by habit is read too: `\boxed{X}` and `#### X`. The last one in a text counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

_LINE = re.compile(r"(?:\banswer\**\s*:|####)\s*\**[^\S\n]*(?P<value>[^\n]*)", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
# What may stand around an answer without being part of it: markdown stars, maths delimiters, quotes, the full stop that ends a sentence.
_WRAPPING = " \t*`$\"'"


def final_answer(text: str) -> str | None:
    r"""The last final answer in a text, without its marker and wrapping, or None where there is none (or an empty one)."""
    last = None
    for _, _, value in _answers(text):
        last = value
    return last or None


def follows_convention(text: str) -> bool:
    """True when a text states exactly one final answer and ends with it."""
    found = list(_answers(text))
    if len(found) != 1 or not found[0][2]:
        return False
    return not text[found[0][1] :].strip(_WRAPPING + ".\r\n")


def count_answers(text: str) -> int:
    """How many final answers a text states, empty ones left out."""
    return sum(1 for _, _, value in _answers(text) if value)


def normalise(answer: str) -> str:
    """The form in which answers are compared.

    Numbers lose thousands commas, plus signs, leading and trailing zeros ('+1,250.50' -> '1250.5', '-0' -> '0').
    Other text loses case, wrapping and extra white space.
    """
    bare = " ".join(answer.split()).rstrip(_WRAPPING + ".").lstrip(_WRAPPING)
    if _NUMBER.fullmatch(bare):
        number = Decimal(bare.replace(",", ""))
        plain = format(number, "f")
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
        return "0" if number == 0 else plain
    return bare.casefold()


def same_answer(given: str | None, reference: str) -> bool:
    """True when an answer was given and equals the reference after `normalise`."""
    return given is not None and normalise(given) == normalise(reference)


def _answers(text: str) -> Iterator[tuple[int, int, str]]:
    r"""(start, end, value) of every final answer, in order. A `\boxed` inside an answer line is that line's value, not a second answer."""
    lines = [(m.start(), m.end(), m["value"]) for m in _LINE.finditer(text)]
    found = []
    for start, end, value in lines:
        boxed = list(_boxes(value))
        found.append((start, end, boxed[-1][2] if boxed else value))
    inside = [(start, end) for start, end, _ in lines]
    found += [box for box in _boxes(text) if not any(start <= box[0] < end for start, end in inside)]
    for start, end, value in sorted(found):
        yield start, end, value.strip(_WRAPPING + "\r\n")


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    r"""(start, end, content) of every `\boxed{...}` whose braces balance."""
    for opening in _BOXED.finditer(text):
        depth = 1
        for place in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                yield opening.start(), place + 1, text[opening.end() : place]
                break
