"""An exact checker of steps in the place of a model that judges, as good as it is or made worse on purpose."""

from __future__ import annotations

from concurrent.futures import Future
from random import Random

from etude.config import Share
from etude.ledger import Ledger
from etude.models.sampling import SamplingParams
from etude.rewards.judges import Judge, Judgement, Question
from etude.tasks.base import TaskSet
from etude.tasks.first_error import FLAWLESS

EXACT = "exact"
"""What the option for the judge calls it."""


class StepChecker(Judge):
    """Answers as a model would, in a text that is parsed the same way, but from the task set's own knowledge: no tokens, and no call is counted.

    recall: how often it sees a flaw that is there. false_alarms: how often it says that a sound solution is flawed, at a step drawn at random. Neither depends on how
    common flaws are, as precision does: where half of the solutions are flawed, a recall of 0.91 and false alarms of 0.136 make a precision of 0.87.
    """

    def __init__(self, tasks: TaskSet, ledger: Ledger, *, recall: Share = 1.0, false_alarms: Share = 0.0) -> None:
        super().__init__(EXACT, SamplingParams(max_new_tokens=1), ledger)
        self.tasks, self.recall, self.false_alarms = tasks, recall, false_alarms

    def ask(self, question: Question) -> Future[Judgement]:
        """The judgement of the question's subject, a task and the steps of a solution of it."""
        task, steps = question.subject
        random = Random(question.stream)
        first = self.tasks.first_wrong_step(task, steps)
        if first is None:
            text = ""
        elif first == FLAWLESS:
            text = f"answer: {random.randrange(len(steps)) if steps and random.random() < self.false_alarms else FLAWLESS}"
        else:
            text = f"answer: {first if random.random() < self.recall else FLAWLESS}"
        future: Future[Judgement] = Future()
        future.set_result(Judgement(text, 0, finished=bool(text)))
        return future

    def settle(self) -> None:
        """Every answer is there as soon as it is asked for."""
