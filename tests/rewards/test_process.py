"""Scores of steps: by hand, from a task set's own checker, and from a model that is asked."""

from __future__ import annotations

from concurrent.futures import Future
from random import Random

import pytest

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.sampling import SamplingParams
from etude.rewards.judges import Judge, Judgement, Question
from etude.rewards.process import ProcessReward, worst_step
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.countdown import Countdown
from etude.types import Message, Segment, Task, Trajectory

TASK = Task("t", (Message("user", "make 13 from 3 7 2"),), "7+3*2", {"numbers": [3, 7, 2], "target": 13})


class Says(Judge):
    """Says what it is told to, and remembers how often it was asked."""

    def __init__(self, text: str, finished: bool = True) -> None:
        super().__init__("says", SamplingParams(max_new_tokens=4), Ledger())
        self.answer, self.asked = Judgement(text, 0, finished), list[str]()

    def ask(self, question: Question) -> Future[Judgement]:
        self.asked.append(question.messages[-1].content)
        future: Future[Judgement] = Future()
        future.set_result(self.answer)
        return future

    def settle(self) -> None:
        pass


def attempt(text: str) -> Trajectory:
    return Trajectory(TASK, [1], [Segment([5], "policy", text)], "eos", rewards={"correct": Countdown().verify(TASK, text)["correct"]})


def test_an_attempt_is_worth_its_worst_step() -> None:
    assert [worst_step(first, 3) for first in (-1, 0, 2, None)] == [1.0, -1.0, -1.0, 0.0]
    assert worst_step(-1, 0) == -1.0
    again = Random(3)
    errors = [again.gauss(0.0, 0.3) for _ in range(2)]
    assert worst_step(-1, 2, noise=0.3, random=Random(3)) == pytest.approx(min(1.0, *(1 + e for e in errors)))
    assert all(-1 <= worst_step(1, 2, noise=0.5, random=Random(seed)) <= 0.5 for seed in range(50))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("3*2=6\n7+6=13\nanswer: 7+3*2", -1),
        ("3*2=7\n7+6=13\nanswer: 7+3*2", 0),  # wrong, though the answer is right
        ("3*2=6\n7+7=14\nanswer: 7+3*2", 1),  # true, with numbers that are not there
        ("3*2=6\n2+7=9\nanswer: 7+3*2", 1),  # used up already
        ("3-7=-4\nanswer: 7+3", 1),
        ("3 by 2\nanswer: 7+3*2", 0),
        ("answer: 7+3*2", -1),
    ],
)
def test_the_steps_of_countdown_are_checked_exactly(text: str, first: int) -> None:
    assert Countdown().first_wrong_step(TASK, text.splitlines()) == first


def test_the_checker_of_the_tasks_scores_steps() -> None:
    texts = ["3*2=6\n7+6=13\nanswer: 7+3*2", "3*2=7\n7+6=13\nanswer: 7+3*2", "3*2=6\nanswer: 3*2", "3*2=6"]
    assert ProcessReward(Countdown())([attempt(text) for text in texts], lambda t: 0) == [1.0, -1.0, -1.0, -1.0]
    with pytest.raises(InputError, match="arithmetic does not check the steps of a solution; expected"):
        ProcessReward(Arithmetic())


def test_a_model_is_asked_once_about_the_same_text() -> None:
    judge = Says("so\nanswer: 1")
    texts = ["3*2=6\n7+6=12\nanswer: 7+3*2", "3*2=6\n7+6=12\nanswer: 7+3*2", "answer: 7+3*2"]
    # Of one line, number 1 is none.
    assert ProcessReward(Countdown(), judge)([attempt(text) for text in texts], lambda t: 0) == [-1.0, -1.0, 0.0]
    assert [("0 3*2=6" in asked, "which may go wrong anywhere" in asked) for asked in judge.asked] == [(True, True), (False, True)]
    assert ProcessReward(Countdown(), Says("answer: 1", finished=False))([attempt(texts[0])], lambda t: 0) == [0.0]
