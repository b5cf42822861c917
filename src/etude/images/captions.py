"""What a picture of the world shows: a coloured shape, or none, in each of its four quarters; in numbers and in words, and how captions are drawn at random.

A caption is four numbers, one a place: 0 for nothing, else a kind, 1 + 6 shape + colour. Read without places ("a red circle and a blue cross, anywhere") it is the
same numbers, the largest first. Two numbers stand for no caption at all (guidance), and for one whose picture a model made itself (Self-E).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from numpy.random import Generator

from etude.errors import InputError, nearest

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
PLACES = ("top-left", "top-right", "bottom-left", "bottom-right")

NOTHING = 0
KINDS = range(1, 1 + len(SHAPES) * len(COLOURS))
NO_CAPTION = KINDS.stop
MADE_BY_MODEL = NO_CAPTION + 1
VOCABULARY = MADE_BY_MODEL + 1
"""Numbers that a caption's places can hold. Words of other captions than the world's have numbers from here on."""

Caption = tuple[int, ...]
Law = Literal["uniform", "biased", "unseen"]
"""How captions are drawn. `uniform`: one object or two, of any kinds, in any places. `biased`: most shapes have one of three colours of their own, and the kinds in UNSEEN
never occur: what a model is trained on that has something left to learn. `unseen`: uniform captions with such a kind in them."""

BIAS = 0.9
"""Share of a biased caption's objects that have one of their shape's own colours."""


def kind(shape: int, colour: int) -> int:
    """The number of a kind, from those of its shape and its colour."""
    return KINDS.start + shape * len(COLOURS) + colour


def shape_and_colour(number: int) -> tuple[int, int]:
    """What a kind's number stands for."""
    return divmod(number - KINDS.start, len(COLOURS))


UNSEEN = frozenset({*(kind(shape, (2 * shape + 4) % 6) for shape in range(4)), kind(0, 5), kind(2, 1)})
"""Kinds that biased captions never have."""


def draw_captions(count: int, law: Law, random: Generator) -> list[Caption]:
    """Captions drawn at random. Raises InputError for an unknown law."""
    if law not in ("uniform", "biased", "unseen"):
        raise InputError(f"there is no law of captions {law!r}.{nearest(law, ('uniform', 'biased', 'unseen'))} Expected uniform, biased or unseen")
    drawn: list[Caption] = []
    while len(drawn) < count:
        caption = _drawn(law == "biased", random)
        if law != "unseen" or UNSEEN.intersection(caption):
            drawn.append(caption)
    return drawn


def _drawn(biased: bool, random: Generator) -> Caption:
    caption = [NOTHING] * len(PLACES)
    for place in random.permutation(len(PLACES))[: 1 + random.integers(2)]:
        number = int(random.integers(KINDS.start, KINDS.stop))
        if biased:
            number = _biased(random)
        caption[place] = number
    return tuple(caption)


def _biased(random: Generator) -> int:
    while True:
        shape = int(random.integers(len(SHAPES)))
        own = random.random() < BIAS
        colour = (2 * shape + int(random.integers(3))) % 6 if own else int(random.integers(6))
        if (number := kind(shape, colour)) not in UNSEEN:
            return number


def without_places(caption: Sequence[int]) -> Caption:
    """The same objects, wherever they are: kinds in descending order, then nothing."""
    return tuple(sorted(caption, reverse=True))


def in_words(caption: Sequence[int], *, places: bool = True) -> str:
    """A caption as text: `red circle top-left, blue cross bottom-right`; without places `red circle, blue cross`."""
    words = []
    for place, number in zip(PLACES, caption, strict=True):
        if number in KINDS:
            shape, colour = shape_and_colour(number)
            words.append(f"{COLOURS[colour]} {SHAPES[shape]}" + (f" {place}" if places else ""))
        elif number != NOTHING:
            raise InputError(f"{number} in the caption {tuple(caption)} is no kind; expected {NOTHING} for nothing, or {KINDS.start} to {KINDS.stop - 1}")
    return ", ".join(words)


def from_words(text: str) -> tuple[Caption, bool]:
    """A caption from its text, and whether it names places. Raises InputError for anything that `in_words` does not write."""
    found: dict[int, int] = {}
    parts = [part.split() for part in text.split(",")]
    placed = len(parts[0]) == 3
    for position, part in enumerate(parts):
        known = len(part) == 2 + placed and part[0] in COLOURS and part[1] in SHAPES and (not placed or part[2] in PLACES)
        place = (PLACES.index(part[2]) if placed else position) if known else -1
        if not known or place in found or place >= len(PLACES):
            raise InputError(
                f"{' '.join(part) or text!r} can't be drawn; expected at most one object a place, such as 'red circle top-left, blue cross bottom-right', or without "
                f"places 'red circle, blue cross'; colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}; places: {', '.join(PLACES)}"
            )
        found[place] = kind(SHAPES.index(part[1]), COLOURS.index(part[0]))
    caption = tuple(found.get(place, NOTHING) for place in range(len(PLACES)))
    return (caption, True) if placed else (without_places(caption), False)
