"""Is this solution right? Attempts at tasks become tasks themselves, whose answer is the score that the verifier gave (RISE, arXiv:2505.13445).

A final answer that is right, one that is wrong, and none at all have a score each. The policy reads the question and a response and is asked for that score; what it
says is then scored by the same three cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from etude.errors import InputError
from etude.tasks.answers import final_answer, normalise
from etude.tasks.base import RIGHT
from etude.tasks.follow_up import FollowUpTasks, transcript
from etude.tasks.templates import filled
from etude.types import Message, Task, Trajectory

TOLERANCE = 1e-6
"""Ratings that differ by less are the same: -0.5, -.5 and -0.50 are one number."""

LONG = r"""Below are a question and a response to it. Rate the response.

The ratings:
{right} if the response states a final answer, as a line 'answer: X' or as \boxed{X}, and it is right;
{wrong} if it states one and it is wrong;
{unanswered} if it states none.

Question:
{question}

Response:
{response}

Check the response in a few sentences. Then end with a line 'answer: X', where X is the rating: {right}, {wrong} or {unanswered}."""
"""What is asked of models that can follow instructions."""
SHORT = "rate: {question}\n{response}"
"""What is asked of small models, which have to be taught what it means: the built-in tasks `rating` do."""


@dataclass(frozen=True)
class Scale:
    """The score of each of the three cases. The paper's: 1, -0.5, -1."""

    right: float = 1.0
    wrong: float = -0.5
    unanswered: float = -1.0

    def __post_init__(self) -> None:
        if not self.right > self.wrong > self.unanswered or not all(map(math.isfinite, self.values)):
            raise InputError(
                f"the scores of a right answer, a wrong one and none are {self.right:g}, {self.wrong:g}, {self.unanswered:g}; expected finite ones that fall"
            )

    @property
    def values(self) -> tuple[float, float, float]:
        """All three, best first."""
        return self.right, self.wrong, self.unanswered

    def outcome(self, correct: float, *, answered: bool) -> float:
        """The score of a solution whose verdict in [0, 1] is `correct`. NaN for one that could not be judged."""
        if math.isnan(correct):
            return math.nan
        return self.right if correct >= RIGHT else self.wrong if answered else self.unanswered

    def agreement(self, rating: float | None, truth: float) -> float:
        """The score of a rating whose solution has the score `truth`: whether it is that number, another (or no number), or there is no rating."""
        return self.unanswered if rating is None else self.right if same(rating, truth) else self.wrong


def same(rating: float | None, truth: float) -> bool:
    """Whether a rating is a score, compared as numbers."""
    return rating is not None and abs(rating - truth) <= TOLERANCE


def rating_in(text: str) -> float | None:
    """The last final answer of a critique as a number: NaN where it states something else, None where it states nothing."""
    answer = final_answer(text)
    if answer is None:
        return None
    try:
        value = float(normalise(answer))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


class Verification(FollowUpTasks):
    """Asks for the score of an attempt, which its component `outcome` says. Judged attempts only.

    template: the prompt, with {question}, {response} and the three scores by name; everything else in it stays as it is, other braces too.
    """

    name = "verification"
    reward_weights: Mapping[str, float] = {"agreement": 1.0}

    def __init__(self, *, scale: Scale, template: str, max_new_tokens: int) -> None:
        self.scale = scale
        self.template = template
        self.max_new_tokens = max_new_tokens

    def prompt(self, question: str, response: str) -> str:
        """The template filled in, in one pass: what a response says is never taken for a field."""
        values = {"question": question, "response": response, **{name: f"{getattr(self.scale, name):g}" for name in ("right", "wrong", "unanswered")}}
        return filled(self.template, values)

    def follow(self, attempt: Trajectory) -> Task:
        return self.about(attempt.task, transcript(attempt), attempt.rewards["outcome"], attempt.sample)

    def about(self, task: Task, response: str, score: float, sample: int = 0) -> Task:
        """What is asked about a response to a task. The task's system message stays in front.

        `info["truth"]` is the score; `answer`, which is what is rewarded, may be made another.
        """
        before = tuple(m for m in task.messages if m.role == "system")
        question = Message("user", self.prompt(task.prompt, response))
        return Task(f"{task.id}/verify-{sample}", (*before, question), answer=f"{score:g}", info={"truth": score})

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        """`agreement`, the score of the rating; `exact`, whether it is the answer; `rated`, whether it is one of the three scores.

        There is no `correct` among them, which is what is said of solutions.
        """
        rating = rating_in(text)
        assert task.answer is not None, "a task made from a judged attempt has an answer"
        truth = float(task.answer)
        return {
            "agreement": self.scale.agreement(rating, truth),
            "exact": float(same(rating, truth)),
            "rated": float(any(same(rating, value) for value in self.scale.values)),
        }
