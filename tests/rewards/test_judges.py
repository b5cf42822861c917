"""Judges: which weights answer, when, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from chat_server import Server, completion, serving

from etude.config import JudgeConfig
from etude.errors import EtudeError, InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import Request
from etude.rewards.judges import Judge, Question, open_judge
from etude.types import Message

QUESTIONS = [Question((Message("user", f"compute {i}+4"),), stream=i) for i in range(5)]


@pytest.fixture
def policy() -> LanguageModel:
    return LanguageModel.load("tiny")


def answers(judge: Judge, questions: list[Question] = QUESTIONS) -> list[str]:
    futures = [judge.ask(question) for question in questions]
    judge.settle()
    return [future.result().text for future in futures]


def change(policy: LanguageModel) -> None:
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(0.25)
    policy.sampler.update(policy.sampler.version + 1, policy.model.named_parameters())


def test_the_live_judge_writes_what_the_policy_would_and_every_token_is_counted(policy: LanguageModel) -> None:
    ledger = Ledger()
    judge = open_judge(JudgeConfig(judge_tokens=30, judge_temperature=1.0), policy, ledger)
    futures = [judge.ask(question) for question in QUESTIONS]
    assert not any(future.done() for future in futures)
    judge.settle()
    judgements = [future.result() for future in futures]
    requests = [Request(tuple(policy.render(q.messages)), judge.params, stream=q.stream) for q in QUESTIONS]
    completions = policy.sampler.generate(requests)
    assert [j.text for j in judgements] == [c.text for c in completions]
    assert [j.tokens for j in judgements] == [len(c.prompt) + len(c.tokens) for c in completions]
    assert ledger.judged_tokens == sum(j.tokens for j in judgements) == ledger.forward_equivalents
    assert ledger.generated_tokens == ledger.prompt_tokens == ledger.rollouts == 0
    assert ledger.model_calls == {"judge": 5}
    judge.settle()
    assert ledger.model_calls == {"judge": 5}, "what was answered is not answered again"


def test_what_a_judge_does_not_end_is_marked(policy: LanguageModel) -> None:
    judge = open_judge(JudgeConfig(judge_tokens=2), policy, Ledger())
    future = judge.ask(QUESTIONS[0])
    judge.settle()
    assert not future.result().finished


def test_the_frozen_judge_stays_what_the_policy_was(policy: LanguageModel) -> None:
    live, frozen = (open_judge(JudgeConfig(judge=kind, judge_tokens=30), policy, Ledger()) for kind in ("live", "frozen"))
    before = answers(live)
    assert answers(frozen) == before
    change(policy)
    assert answers(live) != before
    assert answers(frozen) == before


def test_the_average_takes_its_share_of_every_step(policy: LanguageModel) -> None:
    name, parameter = next(iter(policy.model.named_parameters()))
    start = parameter.detach().clone()
    judge = open_judge(JudgeConfig(judge="average", judge_decay=0.75, judge_tokens=30), policy, Ledger())
    first = answers(judge)
    change(policy)
    judge.follow()
    # 0.75 of the start, and 0.25 of a quarter of it; then 0.75 of that and 0.25 of a quarter again.
    torch.testing.assert_close(judge.state()[name], start * 0.8125)
    judge.follow()
    torch.testing.assert_close(judge.state()[name], start * 0.671875)

    other = open_judge(JudgeConfig(judge="average", judge_decay=0.75, judge_tokens=30), policy, Ledger())
    assert answers(other) != first
    other.load_state(judge.state())
    assert answers(other) == answers(judge)
    for _ in range(40):
        judge.follow()
    assert answers(judge) == answers(open_judge(JudgeConfig(judge_tokens=30), policy, Ledger()))


def test_another_model_can_judge(policy: LanguageModel) -> None:
    judge = open_judge(JudgeConfig(judge="tiny", judge_tokens=30), policy, Ledger())
    before = answers(judge)
    change(policy)
    assert answers(judge) == before


def test_a_question_that_is_too_long_goes_unanswered(policy: LanguageModel) -> None:
    ledger = Ledger()
    judge = open_judge(JudgeConfig(), policy, ledger)
    long, short = judge.ask(Question((Message("user", "7" * 300),), 0)), judge.ask(QUESTIONS[0])
    with pytest.warns(UserWarning, match=r"30\d tokens, but it reads 256 in all"):
        judge.settle()
    assert (long.result().text, long.result().tokens, long.result().finished) == ("", 0, False)
    assert short.result().text
    assert ledger.model_calls == {"judge": 1}


def test_a_model_that_is_not_there_is_refused(policy: LanguageModel) -> None:
    with pytest.raises(InputError, match=r"--judge \./nowhere can't be used: .* expected live, frozen, average, a model, http"):
        open_judge(JudgeConfig(judge="./nowhere"), policy, Ledger())


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("openai")
    with serving() as running:
        yield running


def test_an_endpoint_begins_before_it_is_waited_for(server: Server, policy: LanguageModel) -> None:
    ledger = Ledger()
    judge = open_judge(JudgeConfig(judge=f"{server.url}#small", judge_tokens=9, judge_temperature=0.5), policy, ledger)
    early = judge.ask(QUESTIONS[0])
    assert early.result(timeout=10).text == "compute 0+4?"
    assert ledger.judged_tokens == 0
    assert answers(judge, QUESTIONS[1:]) == [f"compute {i}+4?" for i in range(1, 5)]
    # 5 tokens read and 12 written, as the server says.
    assert ledger.judged_tokens == 5 * 17
    assert ledger.model_calls == {"judge": 5}
    assert {body["max_tokens"] for _, body, _ in server.requests} == {9}
    judge.close()


def test_an_endpoint_that_does_not_count_is_counted_by_the_policys_tokenizer(server: Server, policy: LanguageModel) -> None:
    server.reply = lambda body: (200, completion(["12"], tokens=None))
    ledger = Ledger()
    judge = open_judge(JudgeConfig(judge=f"{server.url}#small"), policy, ledger)
    answers(judge, QUESTIONS[:1])
    assert ledger.judged_tokens == len(policy.render(QUESTIONS[0].messages)) + 2
    judge.close()


def test_an_endpoint_that_fails_says_so(server: Server, policy: LanguageModel) -> None:
    judge = open_judge(JudgeConfig(judge=f"{server.url}#small"), policy, Ledger())
    server.reply = lambda body: (400, {"error": {"message": "too hot"}})
    judge.ask(QUESTIONS[0])
    with pytest.raises((InputError, EtudeError), match=r"refuses the request.*too hot"):
        judge.settle()
    judge.close()


def test_an_endpoint_that_is_not_there_is_found_at_the_start(policy: LanguageModel) -> None:
    pytest.importorskip("openai")
    with pytest.raises(InputError, match="nothing answers at"):
        open_judge(JudgeConfig(judge="http://127.0.0.1:9/v1#small"), policy, Ledger())
