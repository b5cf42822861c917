"""The first bad step: how a model is asked for it, what is read, and how often it is asked."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from etude.ledger import Ledger
from etude.models.sampling import SamplingParams
from etude.rewards.judges import Judge, Judgement, Question
from etude.rewards.step_verdicts import StepJudge, Walk
from etude.tasks.step_judging import SHORT, STANDARD, TakenStep, step_question, step_template, step_verdict
from etude.types import Message, Task


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("g", "good"),
        (" B\n", "bad"),
        ("u", "uncertain"),
        ("It looks good.\njudgement: Bad", "bad"),
        ("judgement: Uncertain", "uncertain"),
        ("gb", None),
        ("", None),
    ],
)
def test_a_verdict_is_read(text: str, read: str | None) -> None:
    assert step_verdict(text) == read


def test_the_question_shows_what_came_before() -> None:
    steps = [TakenStep("take a", "ok"), TakenStep("make {action}", "error")]
    (asked,) = step_question(SHORT, "make b", steps[:1], steps[1])
    assert asked.content == "good? make b\ntake a: ok\nmake {action}: error"
    assert (step_template("auto", 256), step_template("auto", None)) == (SHORT, STANDARD)


class Errors(Judge):
    """Calls a step bad whose result is an error, and says nothing of step `x`."""

    asked = 0

    def ask(self, question: Question) -> Future[Judgement]:
        self.asked += 1
        line = question.messages[-1].content.splitlines()[-1]
        future: Future[Judgement] = Future()
        future.set_result(Judgement("" if line.startswith("x") else "b" if line.endswith("error") else "g", 1, True))
        return future

    def settle(self) -> None:
        pass


def test_episodes_are_gone_through_to_their_first_bad_step_and_no_further() -> None:
    judge = Errors("errors", SamplingParams(), Ledger())
    steps = StepJudge(judge, "short")
    task = Task("t", (Message("user", "q"),))
    ok, bad, other, odd = TakenStep("a", "ok"), TakenStep("b", "error"), TakenStep("c", "ok"), TakenStep("x", "error")
    walks = [Walk(task, (ok, bad, other)), Walk(task, (ok, other)), Walk(task, (bad,)), Walk(task, (odd, bad)), Walk(task, ())]
    assert steps.first_bad(walks, lambda task, text: 0) == [1, None, 0, 1, None]
    # First steps a, b and x, the shared one once; then b and c behind a, and b behind x.
    assert judge.asked == len(steps.transcripts) == 6
    assert steps.metrics() == pytest.approx({"judge/questions": 6, "judge/bad": 3 / 6, "judge/uncertain": 0, "judge/unread": 1 / 6})
