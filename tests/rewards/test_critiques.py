"""Critiques: what is read from a judgement, what is not, and that judges of every kind give them alike."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from chat_server import serving

from etude.config import JudgeConfig
from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.models.schemas import Unreadable
from etude.models.scripted import Rule, ScriptedModel, Situation
from etude.rewards.critiques import Critique, CritiqueForm, critiques
from etude.rewards.judges import Question, ResponderJudge, open_judge
from etude.types import Message

FIELDS: dict[str, Any] = {"files": (list[str], "which files are touched"), "verdict": Literal["good", "bad"]}
FORM = CritiqueForm(-100, 100, whole=True, fields=FIELDS)
LINES = CritiqueForm(0, 10, fields={"verdict": Literal["good", "bad"], "steps": int}, style="lines")
SAID: dict[str, Any] = {"explanation": "it loops", "feedback": "stop", "files": ["a.py"], "verdict": "bad", "value": -40}
WRITTEN = "Let me see.\n**Explanation:** it loops,\nand loops\nFEEDBACK: stop\nverdict: bad\n- steps: 3\nvalue: 2.5/10"
QUESTIONS = [Question((Message("user", f"rate attempt {i}"),), stream=i) for i in range(6)]


def test_a_critique_is_read_from_json_and_from_lines() -> None:
    text = f"I think so.\n```json\n{json.dumps(SAID)}\n```"
    assert FORM.read(text) == Critique(-40.0, "it loops", "stop", {"files": ["a.py"], "verdict": "bad"}, text=text)
    assert FORM.unit(-40.0) == 0.3
    assert LINES.read(WRITTEN) == Critique(2.5, "it loops,\nand loops", "stop", {"verdict": "bad", "steps": 3}, text=WRITTEN)
    assert FORM.schema.plain["required"] == ["explanation", "feedback", "files", "verdict", "value"]
    assert "- files: which files are touched\n- verdict: one of good, bad\n- value: a whole number from -100 to 100" in FORM.instruction
    assert LINES.instruction.endswith("\nverdict: one of good, bad\nsteps: a whole number\nvalue: a number from 0 to 10")


@pytest.mark.parametrize(
    ("form", "text", "told"),
    [
        (FORM, json.dumps({**SAID, "value": 101}), "value: Input should be less than or equal to 100"),
        (FORM, json.dumps({**SAID, "value": 2.5}), "value: Input should be a valid integer"),
        (FORM, json.dumps({**SAID, "value": None}), "value: Input should be"),
        (FORM, json.dumps({k: v for k, v in SAID.items() if k != "value"}), "value: Field required"),
        (FORM, json.dumps({**SAID, "verdict": "so-so"}), "verdict: "),
        (FORM, json.dumps(SAID) + json.dumps({**SAID, "value": 3}), "2 different objects"),
        (LINES, WRITTEN + "\nvalue: 9", "`value:` is given 2 times, and differently"),
        (LINES, WRITTEN.replace("2.5/10", "2.5/5"), "no number on this scale"),
        (LINES, WRITTEN.replace("2.5/10", "11"), "value: 11 is not from 0 to 10"),
        (LINES, WRITTEN.replace("2.5/10", "about 3"), "'about 3' is no number"),
        (LINES, WRITTEN.replace("- steps: 3\n", ""), "no line that begins with `steps:`"),
        (LINES, WRITTEN.replace("steps: 3", "steps: few"), "steps: Input should be a valid integer"),
    ],
)
def test_no_value_is_made_up(form: CritiqueForm, text: str, told: str) -> None:
    with pytest.raises(Unreadable, match=told):
        form.read(text)


def test_forms_that_cannot_be_are_refused() -> None:
    for settings, told in (
        ({"lowest": 1.0}, r"lies in \[1.0, 1.0\]"),
        ({"fields": {"feedback": str}}, "cannot have a field 'feedback'"),
        ({"fields": {"files": list[str]}, "style": "lines"}, "does not fit on a line"),
    ):
        with pytest.raises(InputError, match=told):
            CritiqueForm(**settings)


def rate(situation: Situation) -> str:
    if "can't be read" in situation.last:
        return json.dumps(SAID)
    if not situation.succeeds():
        return "no idea"
    return json.dumps({**SAID, "value": round(situation.random.gauss(0, 30))})


def test_judges_of_every_kind_answer_alike_and_are_asked_again() -> None:
    pytest.importorskip("openai")
    model, params, ledger = ScriptedModel([Rule("rate", "", rate)]), SamplingParams(256, temperature=0), Ledger()
    found = critiques(ResponderJudge(model, "scripted", params, ledger), QUESTIONS, FORM)
    values = [critique.value for critique in found]
    assert None not in values
    assert 1 <= values.count(-40.0) < 6, "some had to be asked for twice"
    assert ledger.model_calls == {"judge": 6 + values.count(-40.0)}
    assert ledger.judged_tokens == sum(critique.tokens for critique in found)
    once = critiques(ResponderJudge(model, "scripted", params, Ledger()), QUESTIONS, FORM, repairs=0)
    assert [c.value for c in once] == [None if value == -40.0 else value for value in values]
    assert {c.error for c in once} == {"", "there is no JSON object in it"}

    policy = LanguageModel.load("tiny")
    with serving() as server:
        server.reply = model.completion
        far = open_judge(JudgeConfig(judge=f"{server.url}#small", judge_tokens=256), policy, Ledger())
        assert critiques(far, QUESTIONS, FORM) == found
        assert all(body["response_format"]["type"] == "json_schema" for _, body, _ in server.requests)
        far.close()

    # The tiny model knows nothing of critiques: whatever it writes, no value comes of it.
    live = Ledger()
    (critique,) = critiques(open_judge(JudgeConfig(judge_tokens=8), policy, live), QUESTIONS[:1], CritiqueForm(feedback=False, style="lines"))
    assert critique.value is None
    assert "there is no line that begins with `explanation:`" in critique.error
    assert live.judged_tokens == critique.tokens > 0
