"""The scripted model: as good as it is told to be, whatever the order, in the process and behind a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chat_server import Server, serving

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.remote import Endpoint
from etude.models.responders import Asked, CountedResponder, RemoteResponder
from etude.models.sampling import SamplingParams
from etude.models.scripted import Rule, ScriptedModel, Situation, pieces_of, prompt_tokens
from etude.types import Message


def add(situation: Situation) -> str:
    match = situation.match
    assert match is not None
    right = int(match[1]) + int(match[2])
    return f"answer: {right if situation.succeeds(difficulty=len(match[1]) - 1) else right + situation.random.randint(1, 9)}"


RULES = (
    Rule("add", r"(\d+)\+(\d+)", add),
    Rule("greet", lambda messages: len(messages) > 1, lambda situation: "hello again" if situation.last == "hi" else None),
    Rule("mumble", "", lambda situation: "one two three four five"),
)


def asked(count: int, text: str = "{i}+1") -> list[Asked]:
    return [Asked(f"q{i}", (Message("user", text.format(i=i)),)) for i in range(count)]


def test_it_is_right_as_often_as_the_rasch_model_says() -> None:
    model = ScriptedModel(RULES, skill=1.0)
    for text, value, chance in (("3+1", 4, 0.7311), ("30+1", 31, 0.5)):  # 1 / (1 + exp(-1)), and 1 / (1 + exp(0)) at difficulty 1
        (row,) = model.replies(asked(1, text), SamplingParams(), samples=2000, key=(text,))
        right = f"answer: {value}"
        assert sum(reply.text == right for reply in row) / 2000 == pytest.approx(chance, abs=0.034)  # three standard errors
    always, never = (ScriptedModel(RULES, skills={"add": skill}) for skill in (float("inf"), float("-inf")))
    assert {r.text for r in always.replies(asked(1, "2+2"), SamplingParams(), samples=50, key=())[0]} == {"answer: 4"}
    assert "answer: 4" not in {r.text for r in never.replies(asked(1, "2+2"), SamplingParams(), samples=50, key=())[0]}


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("openai")
    with serving() as running:
        yield running


def test_answers_depend_on_nothing_but_what_is_asked(server: Server) -> None:
    model, params = ScriptedModel(RULES), SamplingParams(5, temperature=0.7)
    questions = asked(12)
    rows = model.replies(questions, params, samples=3, key=("run", 4))
    assert len({reply.text for row in rows for reply in row}) > 12
    backwards = model.replies(questions[::-1], params, samples=3, key=("run", 4))
    assert backwards[::-1] == rows
    assert [row[:1] for row in rows] == model.replies(questions, params, samples=1, key=("run", 4))
    assert model.replies(questions, params, samples=3, key=("run", 5)) != rows

    far = RemoteResponder(Endpoint(server.url, "scripted", concurrency=6))
    server.reply = model.completion
    texts = [[reply.text for reply in row] for row in rows]
    assert [[reply.text for reply in row] for row in far.replies(questions, params, samples=3, key=("run", 4))] == texts
    server.reply = lambda body: model.completion({**body, "n": 1})
    assert far.replies(questions, params, samples=3, key=("run", 4)) == rows, "and so are the counts, where a request draws one answer"
    assert len(server.requests) == 12 + 36

    greedy = SamplingParams(5, temperature=0)
    assert model.replies(questions, greedy, samples=1, key=(1,)) == model.replies(questions, greedy, samples=1, key=(2,))
    same = [Asked(name, questions[0].messages) for name in "abcdefgh"]
    assert len({row[0].text for row in model.replies(same, params, samples=1, key=())}) > 1, "equal conversations of different names are different draws"


def test_lengths_limits_and_stops() -> None:
    text = "Wonderful 12 words,\n\n  and more"
    assert pieces_of(text) == ["Wonderfu", "l", " ", "1", "2", " words", ",", "\n\n ", " and", " more"]
    model = ScriptedModel(RULES, context_length=16)
    (conversation,) = asked(1, "hm")
    assert prompt_tokens(conversation.messages) == 5

    def said(params: SamplingParams) -> tuple[str, float, bool, float]:
        ((reply,),) = model.replies([conversation], params, samples=1, key=())
        return reply.text, reply.length, reply.finished, reply.prompt_length

    assert said(SamplingParams(10)) == ("one two three four five", 6.0, True, 5.0)
    assert said(SamplingParams(3)) == ("one two three", 3.0, False, 5.0)
    assert said(SamplingParams(5)) == ("one two three four five", 5.0, False, 5.0)
    assert said(SamplingParams(10, stop=(" three",))) == ("one two", 3.0, True, 5.0)
    assert "".join(model.say(conversation.messages, SamplingParams(2), 7)) == "one two"
    assert model.fits(conversation.messages, 11)
    assert not model.fits(conversation.messages, 12)
    long = Asked("long", (Message("user", "word" + " word" * 11),))
    with pytest.raises(InputError, match="has 16 tokens, but scripted reads 16 in all"):
        model.replies([long], SamplingParams(), samples=1, key=())
    assert model.completion({"messages": [{"role": "user", "content": "word" + " word" * 11}]})[0] == 400

    ledger = Ledger()
    CountedResponder(model, ledger, "proposer").replies([conversation], SamplingParams(10), samples=2, key=())
    assert (ledger.generated_tokens, ledger.prompt_tokens, ledger.model_calls) == (12, 10, {"proposer": 2})


def test_rules_come_in_order_and_skills_have_owners() -> None:
    model = ScriptedModel(RULES[:2])
    talk = (Message("user", "3+4"), Message("assistant", "answer: 7"), Message("user", "hi"))
    assert model.reply(talk, SamplingParams(), 0).text == "hello again"
    with pytest.raises(InputError, match="no rule of scripted answers 'ho'; its rules are add, greet"):
        model.reply([*talk[:2], Message("user", "ho")], SamplingParams(), 0)
    with pytest.raises(InputError, match="has no rule 'ad'"):
        ScriptedModel(RULES, skills={"ad": 1.0})
    with pytest.raises(InputError, match="two rules of scripted are called 'add'"):
        ScriptedModel((RULES[0], RULES[0]))
    with pytest.raises(InputError, match="is scripted and has no log-probabilities"):
        model.likelihoods(asked(1), [["4"]])
