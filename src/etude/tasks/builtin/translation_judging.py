"""`translation-judging`: both roles of a model that translates and judges itself, for imitation. Translations, and candidates to be scored with one digit."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.builtin.generated import FamilyOptions, Problem
from etude.tasks.builtin.translation import LANGUAGES, Translation
from etude.types import Task

DIGIT_PROMPT = "score to {target_language}: {source}\n{candidate}"
"""How a model of these languages is asked for its judgement of a candidate: one digit, 0 to 9."""
HIGHEST = 9
FAULTLESS = 0.2
"""Share of the candidates without any mistake."""
PLANTED = 0.2
"""Share of the candidates that have to get 0 whatever is right about them."""


class TranslationJudging(Translation):
    """'to zomu: yeni rudo-en vel beki' -> 'answer: ibo paro u-chim rond', and 'score to zomu: yeni rudo-en vel beki\\nibo nuko u-chim rond' -> a judgement.

    A judgement first thinks: it translates the source itself and marks each of its words that the candidate has (`ibo= paro! u-chim= rond=`). Then it gives the candidate
    a digit (`answer: 7`), HIGHEST times the share of words in common. Its own translation never slips: with slips in it, which words are marked is learnt much more slowly.
    Candidates are of all qualities. Some are of kinds that get 0: the source itself, words of the wrong language among the right ones, two translations at once; some are
    another sentence.

    judging: share of tasks that ask for a judgement. noise: chance that a demonstrated digit is any digit. shuffled: demonstrated digits are those of other candidates,
    so that they say nothing of this one. The reference answers are the digits by the reference translation all the same.
    """

    name = "translation-judging"
    instruction = "Translate between the invented languages tavi and zomu, or score a translation with a digit. End with a line 'answer: X'."

    def __init__(self, *, judging: float = 0.5, noise: float = 0.0, shuffled: bool = False, qualities: float = 0.5, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(qualities=qualities, **options)
        for name, value in {"judging": judging, "noise": noise}.items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}; expected a share in [0, 1]")
        self.judging, self.noise, self.shuffled = judging, noise, shuffled

    def draw(self, random: Random) -> Problem:
        problem = super().draw(random)
        if random.random() >= self.judging:
            return problem
        candidate, may_score = self.candidate(problem, random)
        digit = compared(candidate, problem.answer)[1] if may_score else 0
        info = {**problem.info, "candidate": candidate, "may_score": may_score, "reference": problem.answer}
        # The key stays that of the meaning: what is held out is held out in both roles.
        return replace(problem, prompt=DIGIT_PROMPT.format(**info), answer=str(digit), info=info)

    def candidate(self, problem: Problem, random: Random) -> tuple[str, bool]:
        """A candidate translation, and whether it may get more than 0."""
        target, source = LANGUAGES[problem.info["to"]], str(problem.info["source"])
        right = problem.answer
        if random.random() < PLANTED:
            kind = random.choice(("copied", "mixed", "several", "other"))
            if kind == "copied":
                return source, False
            if kind == "several":
                return f"{self.slipped(right, target, random, 0.3)} / {self.slipped(right, target, random, 0.3)}", False
            if kind == "other":
                other = super().draw(random)
                while other.info["to"] != problem.info["to"]:
                    other = super().draw(random)
                return other.answer, True
            foreign = [word if random.random() < 0.5 else random.choice(source.split()) for word in right.split()]
            foreign[random.randrange(len(foreign))] = random.choice(source.split())
            return " ".join(foreign), False
        rate = 0.0 if random.random() < FAULTLESS else random.random() ** 1.5
        return self.slipped(right, target, random, rate), True

    def judge(self, task: Task, answer: str) -> bool:
        return answer == task.answer if "candidate" in task.info else super().judge(task, answer)

    def demonstration(self, task: Task, seed: int) -> str | None:
        if "candidate" not in task.info:
            return super().demonstration(task, seed)
        random = Random(f"{task.id}/demonstration/{seed}")
        marks, digit = compared(task.info["candidate"], task.info["reference"])
        if not task.info["may_score"]:
            digit = 0
        if self.shuffled:
            other = super().draw(random)
            candidate, may_score = self.candidate(other, random)
            digit = compared(candidate, other.answer)[1] if may_score else 0
        if random.random() < self.noise:
            digit = random.randint(0, HIGHEST)
        return f"{marks}\nanswer: {digit}"


def compared(candidate: str, own: str) -> tuple[str, int]:
    """A translation of one's own with each word marked, `=` where the candidate has it and `!` where not, and the candidate's digit.

    The digit is HIGHEST times the share of words in common: of those marked `=` in the longer of the two sentences, rounded.
    """
    words, given = own.split(), candidate.split()
    has = [word in given for word in words]
    marks = " ".join(word + ("=" if h else "!") for word, h in zip(words, has, strict=True))
    return marks, round(HIGHEST * sum(has) / max(len(words), len(given)))
