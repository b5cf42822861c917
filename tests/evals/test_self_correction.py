"""Rounds of asking again: what is said, what is counted, and when somebody would stop; worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from etude.config import SelfCorrectionConfig
from etude.errors import InputError
from etude.evals.asking_again import Arm, Verdicts, ask_again, number_in, settle
from etude.evals.intervals import percentile_ends, resampled_items
from etude.evals.option_trace import trace
from etude.evals.revision import Rounds, dynamics, shares, transitions
from etude.evals.self_correction import measure_self_correction
from etude.evals.statistics import mcnemar
from etude.evals.stop_policies import stop_rounds
from etude.models.replies import Reply
from etude.models.responders import Asked
from etude.models.sampling import SamplingParams
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.loading import load_tasks
from etude.tasks.paired import PairedItem
from etude.tasks.paired_prompts import SCRIPTS
from etude.types import Message, Task

TASKS = load_tasks("arithmetic")
ITEM = PairedItem(Task("t", (Message("user", "compute 9*8+19"),), "91"), ("81", "91", "19", "92"), 1)
# Right to unread to right; wrong to another wrong one to right; right to wrong; wrong all the time.
ROUNDS = Rounds(
    np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=float),
    [["5", None, "5"], ["3", "4", "5"], ["5", "6", "6"], ["7", "7", "7"]],
)


class Says:
    """Answers each conversation with the next of some texts, and keeps what it was asked."""

    def __init__(self, *texts: str, context: int = 10**6) -> None:
        self.texts, self.context = iter(texts), context
        self.asked: list[list[Message]] = []

    def replies(self, asked: Sequence[Asked], params: SamplingParams, *, samples: int, key: Sequence[int | str]) -> list[list[Reply]]:
        self.asked += [list(each.messages) for each in asked]
        return [[Reply(next(self.texts), 3.0, True, 10.0 * len(each.messages)) for _ in range(samples)] for each in asked]

    def fits(self, messages: Sequence[Message], new_tokens: int) -> bool:
        return len(messages) <= self.context

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        return [[-1.0, -2.0, -3.0, -4.0] for _ in asked]


ARM = Arm("choice", "baseline", 2, SCRIPTS["short"], SamplingParams(8), samples=3)


def test_what_cannot_be_read_is_a_state_of_its_own() -> None:
    found = {name: ratio.value().tolist() for name, ratio in shares(ROUNDS, np.full(4, 4.0)).items()}
    assert found["accuracy"] == [0.5, 0.0, 0.5]
    # Into round 1: one right answer is spoilt and one gets lost. Into round 2: one is mended and one read again.
    assert (found["fixed"][1:], found["broken"][1:], found["lost"][1:], found["recovered"][1:]) == ([0, 0.25], [0.25, 0], [0.25, 0], [0, 0.25])
    assert (found["fix_rate"][1:], found["break_rate"][1]) == ([0.0, pytest.approx(1 / 3)], 0.5)
    assert math.isnan(found["break_rate"][2])
    assert (found["unread"], found["changed"][1:]) == ([0, 0.25, 0], [0.75, 0.5])
    # Guessing is right one time in four; of the two wrong ones one moved, and a third of moves would have hit.
    assert found["chance_corrected"] == pytest.approx([1 / 3, -1 / 3, 1 / 3])
    assert found["fix_by_chance"][1] == pytest.approx(1 / 6)
    assert (found["inertia"], found["escape"], found["drift"], found["oscillation"]) == ([0.5], [0.5], [0.5], [0.5])
    assert (found["change_rate"], found["wrong_to_other"]) == ([5 / 8], [pytest.approx(1 / 5)])
    assert transitions(ROUNDS)[0].tolist() == [[2, 0, 0], [1, 0, 1], [0, 0, 0]]
    steps = np.diff(found["accuracy"])
    net = np.array(found["net"][1:]) + found["recovered"][1:] - np.array(found["lost"][1:])
    assert steps == pytest.approx(net)
    assert dynamics(ROUNDS)["unread"] == pytest.approx(1 / 12)


def test_stop_policies_look_at_answers_alone() -> None:
    confidence = np.array([[0.9, 0, 0], [0.1, 0.8, 0], [0.1, 0.1, 0.1], [math.nan, 0.9, 0]])
    found = {name: at.tolist() for name, at in stop_rounds(ROUNDS, confidence, 0.8).items()}
    assert found == {"first answer": [0] * 4, "last round": [2] * 4, "unchanged": [2, 2, 2, 1], "confident": [0, 1, 2, 1]}


def test_the_trace_of_options() -> None:
    found = trace(np.log([[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], [[0.5, 0.25, 0.25]] * 2]), np.array([0, -1]))
    assert found["margin"][0] == pytest.approx([math.log(2), -math.log(2)])
    assert np.isnan(found["margin"][1]).all()
    assert found["entropy"][0, 0] == pytest.approx(1.5 * math.log(2))
    assert found["divergence"] == pytest.approx(np.array([[0, 0.25 * math.log(2)], [0, 0]]))
    assert found["confidence"][0, 1] == pytest.approx(0.5)


def test_discordant_pairs_and_resampled_items() -> None:
    assert (mcnemar(0, 0), mcnemar(5, 0), mcnemar(3, 3)) == (1.0, pytest.approx(2 / 32), 1.0)
    weights = resampled_items(50, 2, resamples=400, seed=0)
    assert weights.shape == (400, 100)
    assert (weights.sum(axis=1) == 100).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    values = np.repeat(np.arange(50) < 20, 2)[:, None] * 1.0
    low, high = percentile_ends(weights @ values / 100)
    # The standard error of 0.4 over 50 items, however often each is repeated, is 0.069.
    assert (low[0], high[0]) == (pytest.approx(0.4 - 1.96 * 0.069, abs=0.03), pytest.approx(0.4 + 1.96 * 0.069, abs=0.03))


def test_the_conversation_grows_and_says_nothing_of_right_and_wrong() -> None:
    says = Says("it is\nanswer: A", "hm", "answer: B")
    (log,) = ask_again([ITEM], replace(ARM, option_logits=True), says, Verdicts(TASKS))
    assert [(a.answer, a.right) for a in log] == [("A", 0.0), (None, 0.0), ("B", 1.0)]
    assert [m.content for m in says.asked[2]] == [says.asked[0][0].content, "it is\nanswer: A", "check and fix", "hm", "check and fix"]
    assert (log[2].tokens, log[2].prompt_tokens, log[2].likelihoods) == (3.0, 50.0, [-1.0, -2.0, -3.0, -4.0])


@pytest.mark.parametrize(
    ("changes", "context", "last", "dropped"),
    [
        ({"history": False}, 9, ["Q"], 0),
        ({"append": "letter"}, 9, ["Q", "answer: a", "check and fix", "answer: c", "check and fix"], 0),
        ({}, 3, ["Q", "so\nanswer: C", "check and fix"], 1),
    ],
)
def test_what_the_conversation_keeps(changes: dict, context: int, last: list[str], dropped: int) -> None:
    says = Says("so\nanswer: A", "so\nanswer: C", "so\nanswer: C", context=context)
    (log,) = ask_again([ITEM], replace(ARM, **changes), says, Verdicts(TASKS))
    assert [m.content for m in says.asked[2]] == [says.asked[0][0].content, *last[1:]]
    assert log[2].dropped == dropped


def test_of_several_letters_the_most_common_counts_and_of_texts_the_one_the_model_picks() -> None:
    arm = replace(ARM, way="sc", rounds=0)
    ((chosen,),) = ask_again([ITEM], arm, Says("answer: A", "answer: B", "b"), Verdicts(TASKS))
    assert (chosen.answer, chosen.agreed, chosen.tokens) == ("B", pytest.approx(2 / 3), 9.0)
    says = Says("answer: 90", "answer: 91", "answer: 92", "answer: 2")
    ((chosen,),) = ask_again([ITEM], replace(arm, form="generation"), says, Verdicts(TASKS))
    assert (chosen.answer, chosen.right, chosen.tokens) == ("91", 1.0, 12.0)
    assert "Response 2:\nanswer: 91" in says.asked[1][0].content
    ((chosen,),) = ask_again([ITEM], replace(arm, form="generation", pick="votes"), Says("answer: 7", "answer: 91", "91.0\nanswer: 91.0"), Verdicts(TASKS))
    assert (chosen.answer, chosen.agreed) == ("91", pytest.approx(2 / 3))


def test_a_pick_that_gives_no_number_is_what_it_quotes_and_else_any() -> None:
    assert number_in("I take 'answer: 7'", ["answer: 5", "answer: 7"], Random(0)) == 1
    assert number_in("the third one", ["a!", "b!"], Random(0)) in (0, 1)
    assert number_in("answer: 9", ["a!", "b!"], Random(0)) in (0, 1)


def test_the_answers_of_all_rounds_are_options_in_the_end() -> None:
    logs = ask_again([ITEM], replace(ARM, form="generation"), Says("answer: 90", "answer: 91", "answer: 90"), Verdicts(TASKS))
    says = Says("answer: B")
    assert settle([ITEM], logs, replace(ARM, form="generation"), says) == [(1.0, 3.0)]
    assert says.asked[0][0].content.endswith("90=a\n91=b")
    assert settle([ITEM], [logs[0][:1]], replace(ARM, form="generation"), Says()) == [(0.0, 0.0)]


def test_equal_texts_are_judged_once() -> None:
    calls: list[str] = []

    class Moody(Arithmetic):
        def verify(self, task: Task, text: str) -> dict[str, float]:
            calls.append(text)
            return {"correct": float(len(calls) == 1)}

    verdicts = Verdicts(Moody())
    assert [verdicts.right(ITEM, text) for text in ("a b", "a  b\n", "c")] == [1.0, 1.0, 0.0]


def test_a_report_pairs_formats_on_the_same_items_and_keeps_repeats_together() -> None:
    config = SelfCorrectionConfig(tasks_limit=3, rounds=1, repeats=2, prompts="short", resamples=100)
    texts = ["answer: A", "answer: B"] * 24
    report = measure_self_correction(Says(*texts), TASKS, config)
    free, choice = report.arms
    assert [len(free.logs), len(free.logs[0]), len(free.logs[0][0])] == [2, 3, 2]
    assert {curve.value[0] for curve in (free.curves["accuracy"], free.curves["fixed"]) if not math.isnan(curve.value[0])} == {0.0}
    gap = report.differences["baseline"]["accuracy"]
    assert gap.value == [a - b for a, b in zip(free.curves["accuracy"].value, choice.curves["accuracy"].value, strict=True)]
    assert [stop.name for stop in choice.stops] == ["first answer", "last round", "unchanged", "oracle"]
    with pytest.raises(InputError, match="expected one or more different"):
        measure_self_correction(Says(), TASKS, replace(config, formats=()))
    with pytest.raises(InputError, match="holds the conversation itself"):
        measure_self_correction(Says(), load_tasks("calculator"), config)
    with pytest.raises(InputError, match="add generation"):
        measure_self_correction(Says(), TASKS, replace(config, formats=("choice",), settle=True))
