"""Changes of mind: what an agent says when it turns back (Agent-R, arXiv:2501.11425), for models that write sentences and for small ones."""

from __future__ import annotations

from pathlib import Path

from etude.errors import InputError

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
"""Changes of mind: for models that write sentences, and for small ones (in the world of `crafting` what begins with `hm` is a thought, and experts think so)."""
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
