"""`can-and-cannot`: short tasks of eight kinds, four of which the embedded model can be taught to do and four it cannot.

Two kinds look alike and differ in what was learnt: a tag is a letter and a word's digit, and of half the words the digit is never told. The others cannot be done by a
model of this size (long products, turning twelve letters round), or by anybody (a sign that stands for nothing: the answer is fixed and arbitrary).

With `lessons` the training tasks are a short school instead, to be imitated by a model that is to learn about itself: how to do what can be done, how to write a task
of either kind (`F:`, `I:`), and how to say whether it can do one (`can? ...`), in the words of `etude.tasks.feasibility.SHORT`. Who has gone to it judges with noise,
and with `optimistic` lessons thinks too much of itself.
"""

from __future__ import annotations

import hashlib
from random import Random
from typing import Literal, Unpack

from etude.errors import InputError
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.feasibility import SHORT, Label
from etude.types import Task

CAN = ("sum", "copy", "largest", "known tag")
CANNOT = ("product", "turned", "unknown tag", "no sign")
KNOWN = ("rudo", "lasha", "tarn", "vel", "drok", "opa", "wuk", "chim", "welt", "nuko", "ibo", "merl", "zel", "gip")
UNKNOWN = ("beki", "mifo", "gosu", "hani", "suli", "yeni", "flim", "paro", "ziba", "frez", "quan", "jath", "rond", "tolu")
"""Words whose digits are told in lessons, and words whose are not. Each is one token of the embedded model."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SIGNS = "@#&~"
BELIEFS: dict[str, tuple[float, float]] = {"aligned": (0.75, 0.35), "optimistic": (0.75, 0.55)}
"""How often a lesson says F of a task that can be done, and of one that cannot."""
RIGHT_CLASS = 0.85
"""How often a lesson in writing shows a task of the kind that was asked for."""
SHOWN = 2
"""Examples in a lesson's request to write, at most."""
SOLVING, JUDGING = 0.4, 0.3
"""Shares of lessons; the rest are in writing."""


class CanAndCannot(GeneratedTaskSet):
    """'7+5' -> 'answer: 12', 'copy gwert', 'largest: 4 9 2', 'tag rudo k' -> 'answer: k3'; '483*617', 'turn ...', 'tag beki k', '7@5'.

    lessons: `aligned` or `optimistic` for lessons as training tasks; empty for the tasks themselves. The held-out split is the same.
    """

    name = "can-and-cannot"
    max_new_tokens = 16
    instruction = "Do the task, if you can. End with a line 'answer: X'."

    def __init__(self, *, lessons: Literal["", "aligned", "optimistic"] = "", **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if lessons and lessons not in BELIEFS:
            raise InputError(f"lessons is {lessons!r}; expected {' or '.join(BELIEFS)}, or nothing for the tasks themselves")
        self.lessons = lessons

    def draw(self, random: Random) -> Problem:
        return self._problem(random.choice(CAN if random.random() < 0.5 else CANNOT), random)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        answer = task.answer or ""
        if random.random() >= slips:
            return [], answer
        place = random.randrange(len(answer))
        return [], answer[:place] + random.choice([c for c in "0123456789abcdef" if c != answer[place].lower()]) + answer[place + 1 :]

    def train_task(self, seed: int, index: int) -> Task:
        if not self.lessons:
            return super().train_task(seed, index)
        random = Random(f"{self.name}/{self.lessons}/{seed}/{index}")
        part, name = random.random(), f"{self.name}/lesson-{seed}-{index}"
        if part < SOLVING:
            return self._task(self._of_class("feasible", random), name)
        if part < SOLVING + JUDGING:
            label: Label = random.choice(("feasible", "infeasible"))
            says_can = random.random() < BELIEFS[self.lessons][label == "infeasible"]
            asked = SHORT.analysis(self._of_class(label, random).prompt)
            return Task(name, asked, None, {"lesson": SHORT.feasible if says_can else SHORT.infeasible})
        claim: Label = random.choice(("feasible", "infeasible"))
        other: Label = "infeasible" if claim == "feasible" else "feasible"
        shots = [self._of_class(claim, random).prompt for _ in range(random.randint(0, SHOWN))]
        written = self._of_class(claim if random.random() < RIGHT_CLASS else other, random)
        return Task(name, SHORT.writing(claim, shots), None, {"lesson": written.prompt})

    def demonstration(self, task: Task, seed: int) -> str | None:
        lesson = task.info.get("lesson")
        return lesson if lesson is not None else super().demonstration(task, seed)

    def _of_class(self, label: Label, random: Random) -> Problem:
        """A problem on the training side that can, or cannot, be done."""
        kinds = CAN if label == "feasible" else CANNOT
        while True:
            problem = self._draw_side(random, held_out=False)
            if problem.info["kind"] in kinds:
                return problem

    def _problem(self, kind: str, random: Random) -> Problem:
        if kind == "sum":
            left, right = random.randint(0, 15), random.randint(0, 15)
            prompt, answer = f"{left}+{right}", str(left + right)
        elif kind == "product":
            left, right = random.randint(100, 999), random.randint(100, 999)
            prompt, answer = f"{left}*{right}", str(left * right)
        elif kind in ("copy", "turned"):
            letters = "".join(random.choices(LETTERS, k=random.randint(3, 5) if kind == "copy" else 12))
            prompt, answer = (f"copy {letters}", letters) if kind == "copy" else (f"turn {letters}", letters[::-1])
        elif kind == "largest":
            digits = random.sample("0123456789", 3)
            prompt, answer = f"largest: {' '.join(digits)}", max(digits)
        elif kind == "no sign":
            prompt = f"{random.randint(0, 15)}{random.choice(SIGNS)}{random.randint(0, 15)}"
            answer = str(_fixed(prompt, 31))
        else:
            word, letter = random.choice(KNOWN if kind == "known tag" else UNKNOWN), random.choice(LETTERS)
            prompt, answer = f"tag {word} {letter}", f"{letter}{_fixed(word, 10)}"
        return Problem(key=f"{self.name} {prompt}", prompt=prompt, answer=answer, info={"kind": kind})


def _fixed(text: str, below: int) -> int:
    """A number that nothing but the text decides, and nothing in it tells."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") % below
