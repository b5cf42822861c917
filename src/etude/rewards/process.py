"""Process rewards: what the steps of an attempt are worth, besides its answer.

A checker that knows (the task set's own) or a model that is asked names the first wrong step. The steps before it score 1, it and the ones that build on it -1, and the
attempt as much as its worst step: one error spoils a chain. Scores can be blurred, to see what a method makes of a checker that is not perfect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from random import Random

from etude.config import NonNegative
from etude.errors import InputError
from etude.rewards.judges import Judge, Judgement, LocalJudge, Question
from etude.tasks.base import TaskSet
from etude.tasks.first_error import ANY, FLAWLESS, index_in, question, split_steps, template_named
from etude.types import Trajectory

SOUND, WRONG, UNKNOWN = 1.0, -1.0, 0.0
"""Score of a sound step and of a wrong one, and of an attempt about whose steps nothing is known."""


def worst_step(first_wrong: int | None, steps: int, *, noise: NonNegative = 0.0, random: Random | None = None) -> float:
    """The lowest score of an attempt's steps, in [-1, 1] (the minimum over steps of a process reward model, Math-Shepherd, arXiv:2312.08935).

    first_wrong: number of the first wrong step, FLAWLESS for none, None where it is not known, which gives 0. steps: how many there are; no steps are wrong.
    noise: standard deviation of a normal error on each step's score, drawn from `random`; scores stay in [-1, 1].
    """
    if first_wrong is None:
        return UNKNOWN
    if steps == 0:
        return WRONG
    sound = steps if first_wrong == FLAWLESS else first_wrong
    scores = [SOUND] * sound + [WRONG] * (steps - sound)
    if noise and random is not None:
        scores = [min(SOUND, max(WRONG, score + random.gauss(0.0, noise))) for score in scores]
    return min(scores)


class ProcessReward:
    """Scores the steps of attempts in [-1, 1].

    judge: the model that is asked for the first wrong step; without one the task set's own checker says it. step_prompt: how it is asked, see
    `etude.tasks.first_error.template_named`. noise: see `worst_step`. Raises InputError for a task set without a checker where no judge is given.
    """

    def __init__(self, tasks: TaskSet, judge: Judge | None = None, *, step_prompt: str = "auto", noise: NonNegative = 0.0) -> None:
        if judge is None and not has_checker(tasks):
            raise InputError(
                f"{tasks.name} does not check the steps of a solution; expected a task set with `first_wrong_step`, as countdown or max5, or a judge"
            )
        self.tasks, self.judge, self.noise = tasks, judge, noise
        context = judge.model.context_length if isinstance(judge, LocalJudge) else None
        self.template = template_named(step_prompt, context, full=ANY)

    def __call__(self, attempts: Sequence[Trajectory], stream: Callable[[Trajectory], int]) -> list[float]:
        """The score of each attempt. stream: the key of what is random about one. An attempt without a right or any other final answer scores -1: it did not arrive."""
        steps = [split_steps(t.text) for t in attempts]
        found = self._first_wrong(attempts, steps, stream)
        return [
            worst_step(first, len(own), noise=self.noise, random=Random(stream(t))) if t.correct > 0 or self.tasks.answer_in(t.last_text) is not None else WRONG
            for t, own, first in zip(attempts, steps, found, strict=True)
        ]

    def _first_wrong(self, attempts: Sequence[Trajectory], steps: Sequence[list[str]], stream: Callable[[Trajectory], int]) -> list[int | None]:
        """The first wrong step of each attempt. A model is asked once about attempts of a task that are the same text."""
        if self.judge is None:
            return [self.tasks.first_wrong_step(t.task, own) for t, own in zip(attempts, steps, strict=True)]
        asked: dict[tuple[str, str], Future[Judgement]] = {}
        for t, own in zip(attempts, steps, strict=True):
            if (t.task.id, t.text) not in asked:
                messages = question(self.template, problem=t.task.prompt, reference=t.task.answer or "(none is given)", steps=own)
                asked[t.task.id, t.text] = self.judge.ask(Question(messages, stream(t), subject=(t.task, own)))
        self.judge.settle()
        told = [asked[t.task.id, t.text].result() for t in attempts]
        return [index_in(j.text, len(own)) if j.finished else None for j, own in zip(told, steps, strict=True)]


def has_checker(tasks: TaskSet) -> bool:
    """Whether a task set knows which step of a solution is the first wrong one, by its first training task."""
    return tasks.first_wrong_step(tasks.train_task(0, 0), ["answer: 1"]) is not None
