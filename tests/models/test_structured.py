"""Answers that have to be objects: what is read, what is not, and how often a model is asked again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge
from chat_server import completion, serving
from pydantic import BaseModel

from etude.errors import InputError
from etude.models.remote import Endpoint
from etude.models.responders import Asked, RemoteResponder
from etude.models.sampling import SamplingParams
from etude.models.schemas import Schema, Unreadable
from etude.models.scripted import Rule, ScriptedModel
from etude.models.structured import ask_structured
from etude.types import Message


@dataclass
class Edit:
    file: str
    line: Annotated[int, Ge(1)]
    default: bool = False


class Plan(BaseModel):
    kind: Literal["fix", "test"]
    edits: list[Edit]


GOOD = '{"file": "a.py", "line": 3, "default": true}'
QUESTION = [Asked("q", (Message("user", "where is the bug?"),))]


def test_the_schema_is_one_that_servers_enforce() -> None:
    schema = Schema.of(Plan)
    edit = schema.plain["$defs"]["Edit"]
    assert edit["required"] == ["file", "line", "default"]
    assert edit["additionalProperties"] is schema.plain["additionalProperties"] is False
    assert edit["properties"]["default"] == {"title": "Default", "type": "boolean"}, "a field's name is no keyword"
    assert schema.response_format["json_schema"]["strict"]
    assert schema.read(json.dumps({"kind": "fix", "edits": [json.loads(GOOD)]})) == Plan(kind="fix", edits=[Edit("a.py", 3, True)])
    with pytest.raises(InputError, match="describes no JSON object"):
        Schema.of(int)


@pytest.mark.parametrize(
    "text", [GOOD, f"```json\n{GOOD}\n```", f"<think>{{'a'}} or {{b}}</think>In {{a, b}} it is {GOOD}.", f"{GOOD} That is: {GOOD}", f'{{"no": 1}} {GOOD}']
)
def test_one_object_is_read(text: str) -> None:
    assert Schema.of(Edit).read(text) == Edit("a.py", 3, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("line 3 of a.py", "there is no JSON object"),
        ('{"file": "a.py", "line": "3", "default": true}', "line: Input should be a valid integer"),
        ('{"file": "a.py", "line": 0, "default": true}', "line: Input should be greater than or equal to 1"),
        ('{"outer": {"file": "a.py", "line": 3, "default": true}', "it is not JSON"),
        ('{"file": "a.py", "line": 3, "line": 4, "default": true}', "the key 'line' stands in one object twice"),
        ('{"file": "a.py", "line": NaN, "default": true}', "NaN is no JSON number"),
        (GOOD + GOOD.replace("3", "4"), "2 different objects"),
        ('{"file": ' * 5000, "it is not JSON|nested too deeply"),
    ],
)
def test_nothing_is_guessed(text: str, told: str) -> None:
    with pytest.raises(Unreadable, match=told):
        Schema.of(Edit).read(text)


def test_what_cannot_be_read_is_asked_for_again_a_bounded_number_of_times() -> None:
    seen: list[tuple[Message, ...]] = []

    def flawed(attempts: int) -> ScriptedModel:
        def answer(situation) -> str:
            seen.append(situation.messages)
            return GOOD if len(situation.messages) > 2 * attempts else "line 3"

        return ScriptedModel([Rule("edit", "", answer)])

    (found,) = ask_structured(flawed(2), QUESTION, Edit, SamplingParams(), key=(1,), repairs=2)
    assert (found.value, found.error, len(found.replies)) == (Edit("a.py", 3, True), "", 3)
    assert '"required": ["file", "line", "default"]' in seen[0][-1].content
    assert [m.content for m in seen[1][1:]] == [
        "line 3",
        "That can't be read: there is no JSON object in it. Give the whole answer again, in the form that was asked for.",
    ]
    (unread,) = ask_structured(flawed(2), QUESTION, Edit, SamplingParams(), key=(1,), repairs=1)
    assert (unread.value, unread.error, len(unread.replies)) == (None, "there is no JSON object in it", 2)
    (cut,) = ask_structured(flawed(0), QUESTION, Edit, SamplingParams(9), key=(1,), repairs=0, told=False)
    assert cut.error.startswith("the answer was cut off; it is not JSON")


def test_a_server_enforces_the_schema_or_says_that_it_does_not() -> None:
    pytest.importorskip("openai")
    with serving() as server:
        server.reply = lambda body: (200, completion([GOOD]))
        responder = RemoteResponder(Endpoint(server.url, "small"))
        ask_structured(responder, QUESTION, Edit, SamplingParams(), key=())
        assert server.requests[0][1]["response_format"] == json.loads(json.dumps(Schema.of(Edit).response_format))

        server.reply = lambda body: (400, {"error": {"message": "response_format is unknown"}}) if "response_format" in body else (200, completion([GOOD]))
        with pytest.warns(UserWarning, match="enforces no JSON schema"):
            found = ask_structured(responder, QUESTION, Edit, SamplingParams(), key=())
        found += ask_structured(responder, QUESTION, Edit, SamplingParams(), key=())
        assert [each.value for each in found] == [Edit("a.py", 3, True)] * 2
        assert ["response_format" in body for _, body, _ in server.requests[1:]] == [True, False, False]
        server.reply = lambda body: (400, {"error": {"message": "too long"}})
        with pytest.raises(InputError, match=r"refuses the request \('q'\): .*too long"):
            ask_structured(RemoteResponder(Endpoint(server.url, "small")), QUESTION, Edit, SamplingParams(), key=())
