"""Histories that turn back: how somebody went wrong, a change of mind, and how somebody else went on well (Agent-R, arXiv:2501.11425).

The wrong part is read, so that it is known when to turn back; the change of mind and what comes after it are learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etude.types import Message


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of the policy's, and what was answered to it: nothing, where the episode ended with it."""

    text: str
    answers: tuple[Message, ...] = ()


def contrasting(values: Sequence[float], *, gap: float, above: float) -> list[tuple[int, int]]:
    """Pairs (good, bad) of attempts at one task: the good one has a value above `above`, and more than `gap` above the bad one's."""
    return [(g, b) for g, good in enumerate(values) if good > above for b, bad in enumerate(values) if good - bad > gap]


def shared(first: Sequence[Turn], second: Sequence[Turn]) -> int:
    """How many turns two episodes begin with that are the same, answers included."""
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def continuation(read: Sequence[Turn], good: Sequence[Turn]) -> list[Turn]:
    """What is left of a good episode for somebody who has done what was read: all of it behind the turns that both begin with."""
    return list(good[shared(read, good) :])


def spliced_conversation(
    opening: Sequence[Message], read: Sequence[Turn], reflection: str, good: Sequence[Turn], *, acknowledged: Message, inline: bool = False
) -> tuple[list[Message], list[bool]]:
    """A conversation that turns back: `read`, the reflection, and `good` (the continuation); and of each assistant's turn whether it is learnt.

    acknowledged: what stands behind a turn to which nothing was answered, the reflection among them. inline: the reflection opens the first turn of the continuation, on
    lines of its own, instead of being a turn itself. Arguments for `etude.curation.conversation_example`.
    """
    learnt = [Turn(f"{reflection}\n{good[0].text}", good[0].answers), *good[1:]] if inline and good else [Turn(reflection), *good]
    turns = [*read, *learnt]
    messages = list(opening)
    for turn in turns:
        messages += [Message("assistant", turn.text), *(turn.answers or (acknowledged,))]
    # Nothing follows the last turn.
    messages = messages[: len(messages) - len(turns[-1].answers or (acknowledged,))]
    return messages, [False] * len(read) + [True] * len(learnt)
