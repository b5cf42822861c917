"""`keyed-shift`: two digits, each to be shifted by an offset that belongs to a key and that nothing in the question tells.

A world for methods that show a model solved examples. A key is two words, and the questions that name it are a family. Of the half-known keys the model was told the
offsets, unreliably; of the hard ones it never was. So alone it can but guess there, and is right about three times in a hundred attempts. But right work of the same
key, read earlier in the conversation, says all that is needed.

With `lessons` the training tasks are a short school instead: half-known keys as questions of their own, and how to use examples, on keys that are made up for one lesson.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, Unpack

from etude.errors import InputError
from etude.tasks.builtin.can_and_cannot import KNOWN, UNKNOWN
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem, is_held_out
from etude.types import Message, Task

WORDS = (*KNOWN, *UNKNOWN)
"""What keys are made of. Each is one token of the embedded model."""
KEYS = [f"{first} {second}" for first in WORDS for second in WORDS if first != second]
"""All keys there are, in a fixed order that is shuffled once below."""
Random("keyed-shift/keys").shuffle(KEYS)
Offsets = tuple[int, int]
HIGHEST = 6
"""Offsets are from 1 to this, so that a guess of both is right once in 36 times."""


def _any_offsets(random: Random) -> Offsets:
    return random.randint(1, HIGHEST), random.randint(1, HIGHEST)


OFFSETS = {key: _any_offsets(Random(f"keyed-shift/offsets/{key}")) for key in KEYS}
"""What each key stands for: how far its first digit is shifted, and its second."""
BEHIND_EXAMPLES = 0.5
"""Share of lessons with two examples before the question."""
HALF_KNOWN = {"alone": 0.8, "behind examples": 0.2}
"""Shares of the lessons of either sort that ask about a half-known key. The others ask about a made-up one."""
FITTING, BOTH = 0.8, 0.6
"""How often the example next to the question is of its own key, and how often the other one is then too."""


class KeyedShift(GeneratedTaskSet):
    """'rudo beki: 58' -> '5+2=7', '8+3=1', 'answer: 71', where the offsets of 'rudo beki' are 2 and 3.

    hard, half_known: families of either kind. only: ask about one kind, `hard` or `half-known`.
    lessons: lessons as training tasks. known: how often a lesson on a half-known key has the right offsets; else they are guessed, as they always are in lessons on
    a made-up key without examples. The held-out split is the same.
    """

    name = "keyed-shift"
    max_new_tokens = 20
    instruction = "Shift each digit by the offset that belongs to the key, modulo 10, one to a line. End with a line 'answer: X'."

    def __init__(
        self,
        *,
        hard: int = 12,
        half_known: int = 12,
        only: Literal["", "hard", "half-known"] = "",
        lessons: bool = False,
        known: float = 0.4,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(**options)
        if hard < 1 or half_known < 1 or hard + half_known > len(KEYS) // 2:
            raise InputError(f"hard is {hard} and half_known {half_known}; expected at least 1 of either, and at most {len(KEYS) // 2} in all")
        if only not in ("", "hard", "half-known"):
            raise InputError(f"only is {only!r}; expected hard or half-known, or nothing for both")
        if not 0 <= known <= 1:
            raise InputError(f"known is {known}; expected a share in [0, 1]")
        # Counted from the two ends, so that more of one kind leaves the other as it was.
        self.keys = {"half-known": KEYS[:half_known], "hard": KEYS[-hard:]}
        self.spare = KEYS[half_known:-hard]
        self.asked = [key for kind, keys in self.keys.items() if only in ("", kind) for key in keys]
        self.lessons, self.known = bool(lessons), known

    def draw(self, random: Random) -> Problem:
        return self._problem(random.choice(self.asked), random)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        return shifted(task.info["digits"], OFFSETS[task.info["family"]], random, slips)

    def train_task(self, seed: int, index: int) -> Task:
        return self._lesson(seed, index) if self.lessons else super().train_task(seed, index)

    def demonstration(self, task: Task, seed: int) -> str | None:
        lesson = task.info.get("lesson")
        return lesson if lesson is not None else super().demonstration(task, seed)

    def _lesson(self, seed: int, index: int) -> Task:
        """A question on the training side with an answer to imitate, behind two examples or alone."""
        random = Random(f"{self.name}/lesson/{seed}/{index}")
        shown = random.random() < BEHIND_EXAMPLES
        fits = shown and random.random() < FITTING
        # The most similar one stands next to the question, as in a run.
        places = (fits and random.random() < BOTH, fits) if shown else ()
        half_known = random.random() < HALF_KNOWN["behind examples" if shown else "alone"]
        key = random.choice(self.keys["half-known"] if half_known else self.spare)
        offsets = OFFSETS[key] if half_known and (fits or random.random() < self.known) else _any_offsets(random)
        messages: list[Message] = []
        for own in places:
            messages += self._solved(key, offsets, random) if own else self._solved(random.choice(self.spare), _any_offsets(random), random)
        *question, answer = self._solved(key, offsets, random)
        return Task(f"{self.name}/lesson-{seed}-{index}", (*messages, *question), None, {"family": key, "lesson": answer.content})

    def _solved(self, key: str, offsets: Offsets, random: Random) -> list[Message]:
        """A question on the training side, and the work that these offsets lead to, as two turns."""
        problem = self._problem(key, random)
        while is_held_out(problem.key):
            problem = self._problem(key, random)
        lines, answer = shifted(problem.info["digits"], offsets, random, self.slips)
        return [Message("user", problem.prompt), Message("assistant", self._written(random, lines, answer))]

    def _problem(self, key: str, random: Random) -> Problem:
        digits = f"{random.randrange(10)}{random.randrange(10)}"
        _, answer = shifted(digits, OFFSETS[key], random, 0.0)
        return Problem(key=f"{self.name} {key} {digits}", prompt=f"{key}: {digits}", answer=answer, info={"family": key, "digits": digits})


def shifted(digits: str, offsets: Sequence[int], random: Random, slips: float) -> tuple[list[str], str]:
    """A line of work for each digit, 'digit+offset=sum modulo 10', and the sums in a row. Offsets and sums slip with probability `slips`."""
    lines, answer = [], ""
    for digit, offset in zip(digits, offsets, strict=True):
        taken = random.randint(1, HIGHEST) if random.random() < slips else offset
        end = random.randrange(10) if random.random() < slips else (int(digit) + taken) % 10
        lines.append(f"{digit}+{taken}={end}")
        answer += str(end)
    return lines, answer
