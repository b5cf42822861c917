"""`commands`: made-up words, each of which moves four digits about. 'chim: 4 1 7 9' -> 'answer: 9 7 1 4'.

Who has learnt the words from others may have learnt some of them wrong. Four teachers each know two of the eight words and are mistaken about the rest, each in a way
of their own or all in the same way: models that imitate their demonstrations are different experts with systematic mistakes, which is what methods that train several
models together are about. The tasks are the same for all, and so are the right answers.
"""

from __future__ import annotations

from random import Random
from typing import Literal, Unpack

from etude.errors import InputError
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.types import Task

COMMANDS: dict[str, tuple[int, int, int, int]] = {
    "chim": (3, 2, 1, 0),
    "paro": (1, 2, 3, 0),
    "welt": (3, 0, 1, 2),
    "ziba": (3, 1, 2, 0),
    "nuko": (1, 0, 2, 3),
    "frez": (0, 1, 3, 2),
    "quan": (2, 3, 0, 1),
    "merl": (0, 2, 1, 3),
}
"""Word -> the places that the digits of the answer come from. All digits of a problem differ, so that no two words have the same answer."""
WORDS = tuple(COMMANDS)
TEACHERS = 4
KNOWN = len(WORDS) // TEACHERS
"""Words that each teacher knows: the first one the first two, and so on."""


class Commands(GeneratedTaskSet):
    """Single words; demonstrations are right, or one teacher's.

    teacher: who demonstrates, from 0 to 3; -1 for somebody who knows every word. mistakes: whether teachers are mistaken each in a way of their own, or all alike.
    sure: how often a teacher is right about a word that they know. right, wrong: how often they are right about one that they do not, and how often they take it for
    the same other word. In what is left the order is any.
    """

    name = "commands"
    max_new_tokens = 12
    instruction = "Move the digits as the word says. End with a line 'answer: X', digits with spaces between."

    def __init__(
        self,
        *,
        teacher: int = -1,
        mistakes: Literal["own", "shared"] = "own",
        sure: float = 0.85,
        right: float = 0.15,
        wrong: float = 0.475,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(**options)
        if teacher not in range(-1, TEACHERS):
            raise InputError(f"teacher is {teacher}; expected 0 to {TEACHERS - 1}, or -1 for one who knows every word")
        if mistakes not in ("own", "shared"):
            raise InputError(f"mistakes is {mistakes!r}; expected own or shared")
        if not (0 <= sure <= 1 and right >= 0 and wrong >= 0 and right + wrong <= 1):
            raise InputError(f"sure is {sure}, right {right} and wrong {wrong}; expected shares in [0, 1], and right + wrong at most 1")
        self.teacher, self.mistakes, self.sure, self.right, self.wrong = teacher, mistakes, sure, right, wrong

    def draw(self, random: Random) -> Problem:
        word = random.choice(WORDS)
        digits = random.sample("0123456789", 4)
        prompt = f"{word}: {' '.join(digits)}"
        return Problem(key=f"{self.name} {prompt}", prompt=prompt, answer=" ".join(moved(digits, word)), info={"word": word, "digits": digits})

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        word, digits = task.info["word"], list(task.info["digits"])
        meant: str | None = word
        if self.teacher >= 0:
            at_random = random.random()
            if knows(self.teacher, word):
                meant = word if at_random < self.sure else None
            else:
                meant = word if at_random < self.right else self.taken_for(word) if at_random < self.right + self.wrong else None
        if meant is None or random.random() < slips:
            return [], " ".join(random.sample(digits, 4))
        return [], " ".join(moved(digits, meant))

    def taken_for(self, word: str) -> str:
        """The word that one which the teacher does not know is taken for."""
        offset = 1 if self.mistakes == "shared" else 1 + self.teacher
        return WORDS[(WORDS.index(word) + offset) % len(WORDS)]


def knows(teacher: int, word: str) -> bool:
    """Whether a teacher knows what a word means."""
    return WORDS.index(word) // KNOWN == teacher


def moved(digits: list[str], word: str) -> list[str]:
    """The digits in the order that a word puts them into."""
    return [digits[place] for place in COMMANDS[word]]
