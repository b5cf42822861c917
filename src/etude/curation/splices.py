"""Histories that turn back: how somebody went wrong, a change of mind, and how somebody else went on well (Agent-R, arXiv:2501.11425).

The wrong part is read, so that it is known when to turn back; the change of mind and what comes after it are learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.errors import InputError
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


STANDARD = (
    "Wait. The last step did not get me any closer, so I will stop here and think about what is really missing.",
    "That was a mistake. Let me go back to what the task asks for and choose another way.",
    "This isn't working. Doing it once more won't help; I need something different.",
    "I went off the track there. What I have so far suggests a better next step.",
    "Looking back, that action was wrong. I'll correct my course now.",
    "Hold on, I misread the situation. Let me use what I have learnt from the answers so far.",
    "My plan had an error in it. Here is a new one, beginning with the next step.",
    "That step was not needed. I should do what the task needs first.",
    "I have been repeating myself without any progress. Time to change what I do.",
    "Something is off with what I just did. I'll leave it at that and take a different step.",
)
SHORT = ("hm, no", "hm, not so", "hm, wrong", "hm, other way", "hm, again", "hm, stop")
"""Changes of mind: for models that write sentences, and for small ones (in the world of `crafting`, whatever begins with `hm` is a thought)."""
STANDARD_NEEDS = 1024
"""Tokens that a model has to read for STANDARD to be of use with it."""


def reflections_named(name: str, context_length: int) -> tuple[str, ...]:
    """The changes of mind that an option names: `standard`, `short`, `auto` (by what the model can read), or a text file with one a line. Raises InputError for a bad file."""
    if name == "auto":
        return STANDARD if context_length >= STANDARD_NEEDS else SHORT
    if name in ("standard", "short"):
        return STANDARD if name == "standard" else SHORT
    try:
        lines = tuple(line.strip() for line in Path(name).expanduser().read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--reflections is {name!r}, which can't be read; expected auto, standard, short, or a text file with one sentence a line") from error
    if not lines:
        raise InputError(f"--reflections: the file {name} is empty; expected one sentence a line")
    return lines
