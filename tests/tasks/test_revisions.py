"""Answers given several times over: what is asked between them, how each is judged, and episodes that begin after somebody else's attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.errors import InputError
from etude.evals.evaluate import evaluate
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rewards import judge
from etude.rollouts import EpisodeRequest, run_episodes
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.loading import load_tasks
from etude.tasks.revisions import REQUESTS, VERDICTS, RevisionEnvironment, Revisions, after_attempts, attempts_of
from etude.types import Message, Task

TASK = Task("t", (Message("user", "2+3"),), answer="5")


def test_the_request_follows_every_attempt_but_the_last() -> None:
    environment = RevisionEnvironment("look again: {question}", 3)
    assert environment.reset(TASK) == TASK.messages
    first = environment.step("answer: 5")
    assert (first.messages, first.done, first.reward) == ((Message("user", "look again: 2+3"),), False, 0.0)
    state = environment.snapshot()
    assert (environment.step("").done, environment.step("").done) == (False, True)
    environment.restore(state)
    assert not environment.step("").done


def test_given_attempts_are_context_and_count() -> None:
    begun = after_attempts(TASK, ["answer: 4"], "why?", "base")
    assert begun.opening == (*TASK.messages, Message("assistant", "answer: 4"), Message("user", "why?"))
    environment = RevisionEnvironment("why?", 2)
    assert environment.reset(begun) == begun.opening
    assert environment.step("answer: 5").done
    with pytest.raises(InputError, match="begins after 2 attempts, and an episode has 2"):
        RevisionEnvironment("why?", 2).reset(after_attempts(TASK, ["a", "b"], "why?", "base"))


def test_episodes_judge_every_attempt_and_train_on_none_that_was_given() -> None:
    policy = LanguageModel.load("tiny", device="cpu")
    tasks = load_tasks("arithmetic", env="revise:request=short")
    assert isinstance(tasks, Revisions)
    task = tasks.train_task(0, 0)
    right = f"answer: {task.answer}"
    begun = after_attempts(task, [right], REQUESTS["short"], "base")
    plain, injected = run_episodes(
        policy, [EpisodeRequest(t, 0, 1) for t in (task, begun)], tasks, SamplingParams(24), max_turns=tasks.max_turns, ledger=Ledger()
    )
    judge([plain, injected], tasks)
    assert [s.author for s in plain.segments] == ["policy", "environment", "policy"]
    assert [s.author for s in injected.segments] == ["policy"]
    assert attempts_of(injected)[0] == right
    assert injected.tags[VERDICTS][0] == 1.0
    for t in (plain, injected):
        assert len(t.tags[VERDICTS]) == 2
        assert t.reward == t.tags[VERDICTS][-1] == [s for s in t.segments if s.author == "policy"][-1].reward


def test_an_evaluation_shows_what_the_second_look_is_worth() -> None:
    policy = LanguageModel.load("tiny", device="cpu")
    tasks = load_tasks("check-and-fix")
    metrics = evaluate(policy, tasks, tasks=list(tasks.held_out())[:24], samples=1).metrics
    assert metrics["eval/delta"] == pytest.approx(metrics["eval/correct@2"] - metrics["eval/correct@1"])
    assert metrics["eval/delta"] == pytest.approx(metrics["eval/fixed"] - metrics["eval/broken"])
    assert metrics["eval/pass@1"] == metrics["eval/correct@2"] <= metrics["eval/oracle_stop"]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("revise:turns=1", "expected at least 2"),
        ("revise:turns=two", "expected a whole number"),
        ("revise:rounds=2", "is no setting; expected option=value"),
        ("revise:request=nowhere.txt", "cannot be read"),
    ],
)
def test_wrong_options_are_named(env: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_tasks(Arithmetic(), env=env)


def test_an_environment_of_its_own_and_one_that_ignores_the_start_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="played in an environment of its own"):
        load_tasks("calculator", env="revise")
    policy, tasks = LanguageModel.load("tiny", device="cpu"), load_tasks("calculator")
    begun = after_attempts(tasks.train_task(0, 0), ["answer: 4"], "why?", "base")
    with pytest.raises(InputError, match=r"expected it to open with `task.opening`"):
        run_episodes(policy, [EpisodeRequest(begun, 0, 1)], tasks, SamplingParams(4), max_turns=2, ledger=Ledger())
