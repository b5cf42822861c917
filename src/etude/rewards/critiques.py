"""Critiques: what a judge thinks of something, as a value in a range, an explanation, feedback for whoever tries again, and further fields.

A form says what is asked for, in words that go into the question, and reads what comes back: a JSON object, or labelled lines for models too small to write JSON. A value that
can't be read without guessing is None with a reason, never a number of our own; the judge is shown the reason and asked again a bounded number of times. Judges of every kind
answer alike: the policy, a frozen copy, an endpoint (which can enforce the form), a scripted model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from etude.errors import InputError
from etude.models.sampling import stream_key
from etude.models.schemas import THOUGHT, Schema, Unreadable
from etude.models.structured import mend, reading
from etude.rewards.judges import Judge, Judgement, Question

WORDS = {"explanation": "why, in short", "feedback": "what another attempt should do differently"}
"""The texts of a critique, and what to tell a judge of them."""
_NUMBER = re.compile(r"(?P<value>[-+]?\d+(?:\.\d+)?)(?:\s*/\s*(?P<of>\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Critique:
    """What was read from a judgement. value: None where nothing could be read, and then `error` says why and the rest is empty.

    text: what the judge wrote last. tokens: read and written, over all attempts at this critique.
    """

    value: float | None
    explanation: str = ""
    feedback: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    text: str = ""
    tokens: int = 0


@dataclass(frozen=True, eq=False)
class CritiqueForm:
    """What a critique has to hold. The value lies in [lowest, highest]; `whole`: it is a whole number. feedback: whether it is asked for.

    fields: further fields by name, with a type (`str`, `int`, `float`, `bool`, a Literal, of JSON also a list) or a pair of a type and what to tell the judge of it.
    style: `json`, or `lines`, of which each begins with a field's name and a colon.
    Raises InputError for a range that is none, and for fields that cannot be.
    """

    lowest: float = 0.0
    highest: float = 1.0
    whole: bool = False
    feedback: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)
    style: Literal["json", "lines"] = "json"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lowest) and math.isfinite(self.highest) and self.lowest < self.highest):
            raise InputError(f"a critique's value lies in [{self.lowest}, {self.highest}]; expected two numbers, the smaller first")
        for name in self.fields:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in ("value", *WORDS):
                raise InputError(
                    f"a critique cannot have a field {name!r}; expected lower-case letters, digits and underscores, and not value, explanation or feedback"
                )
            if self.style == "lines" and self._adapters[name].json_schema().get("type") in ("array", "object"):
                raise InputError(f"the field {name!r} does not fit on a line; expected text, a number, a truth value or one of some words, or the style `json`")
        _ = self.schema

    @cached_property
    def schema(self) -> Schema[Any]:
        """The form as a JSON schema. The value comes after the words, so that a model thinks before it rates."""
        number: Any = Annotated[int if self.whole else float, Ge(self.lowest), Le(self.highest)]
        types = {**{name: str for name in self._words}, **{name: kind for name, (kind, _) in self._extra.items()}, "value": number}
        definitions: dict[str, Any] = {name: (kind, ...) for name, kind in types.items()}
        return Schema.of(create_model("critique", __base__=_Strict, **definitions))

    @property
    def instruction(self) -> str:
        """What the judge is told to write; it goes to the end of a question."""
        kind = "a whole number" if self.whole else "a number"
        told = {**{name: WORDS[name] for name in self._words}, **{name: words for name, (_, words) in self._extra.items()}}
        told["value"] = f"{kind} from {self.lowest:g} to {self.highest:g}"
        if self.style == "lines":
            return "End with these lines, and nothing after them:\n" + "\n".join(f"{name}: {words}" for name, words in told.items())
        return f"{self.schema.instruction}\nIts fields:\n" + "\n".join(f"- {name}: {words}" for name, words in told.items())

    def question(self, question: Question) -> Question:
        """The question with the form told at the end of its last message, and enforced where the judge can."""
        *before, last = question.messages
        messages = (*before, replace(last, content=f"{last.content}\n\n{self.instruction}"))
        return replace(question, messages=messages, schema=self.schema if self.style == "json" else None)

    def read(self, text: str) -> Critique:
        """The critique that a text holds. Raises Unreadable where it holds none, where it contradicts itself, and for a value out of range: it is not cut to it."""
        values = self.schema.read(text).model_dump() if self.style == "json" else self._lines(THOUGHT.sub("", text))
        return Critique(float(values["value"]), values["explanation"], values.get("feedback", ""), {name: values[name] for name in self.fields}, text=text)

    def unit(self, value: float) -> float:
        """A value on the scale from 0 (the lowest) to 1 (the highest)."""
        return (value - self.lowest) / (self.highest - self.lowest)

    @property
    def _words(self) -> tuple[str, ...]:
        return ("explanation", "feedback") if self.feedback else ("explanation",)

    @cached_property
    def _extra(self) -> dict[str, tuple[Any, str]]:
        given = {name: spec if isinstance(spec, tuple) else (spec, "") for name, spec in self.fields.items()}
        return {name: (kind, words or _named(kind)) for name, (kind, words) in given.items()}

    @cached_property
    def _adapters(self) -> dict[str, TypeAdapter[Any]]:
        return {name: TypeAdapter(kind) for name, (kind, _) in self._extra.items()}

    def _lines(self, text: str) -> dict[str, Any]:
        names = (*self._words, *self.fields, "value")
        label = re.compile(rf"^[ \t>*_#-]*({'|'.join(names)})[*_]*[ \t]*:[*_]*[ \t]*", re.IGNORECASE | re.MULTILINE)
        found = list(label.finditer(text))
        said: dict[str, set[str]] = {}
        for place, match in enumerate(found):
            end = found[place + 1].start() if place + 1 < len(found) else len(text)
            said.setdefault(match[1].lower(), set()).add(text[match.end() : end].strip())
        for name in names:
            if name not in said:
                raise Unreadable(f"there is no line that begins with `{name}:`")
            if len(said[name]) > 1:
                raise Unreadable(f"`{name}:` is given {len(said[name])} times, and differently")
        values: dict[str, Any] = {name: said[name].pop() for name in names}
        values["value"] = self._number(values["value"])
        for name, adapter in self._adapters.items():
            try:
                values[name] = adapter.validate_strings(values[name].strip("`*. "))
            except ValidationError as error:
                raise Unreadable(f"{name}: {error.errors(include_url=False)[0]['msg']}") from error
        return values

    def _number(self, said: str) -> float:
        match = _NUMBER.fullmatch(said.strip(" \t\n*_`."))
        if match is None or (match["of"] is not None and float(match["of"]) != self.highest):
            raise Unreadable(f"value: {said[:40]!r} is no number on this scale")
        value = float(match["value"])
        if not self.lowest <= value <= self.highest or (self.whole and value != int(value)):
            raise Unreadable(f"value: {value:g} is not {'a whole number ' if self.whole else ''}from {self.lowest:g} to {self.highest:g}")
        return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _named(kind: Any) -> str:
    schema = TypeAdapter(kind).json_schema()
    if options := schema.get("enum"):
        return "one of " + ", ".join(map(str, options))
    return {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list"}.get(
        schema.get("type", ""), "an object"
    )


def critiques(judge: Judge, questions: Sequence[Question], form: CritiqueForm, *, repairs: int = 1) -> list[Critique]:
    """A critique for each question, in their order; the form is told at the end of each.

    repairs: how often the judge is asked again where it can't be read. Answering settles whatever else the judge was asked; everything it reads and writes is in its ledger.
    Raises what answering raises.
    """
    if repairs < 0:
        raise InputError(f"repairs is {repairs}; expected 0 or more")
    asked = [form.question(question) for question in questions]
    found = [Critique(None) for _ in asked]
    places = list(range(len(asked)))
    for attempt in range(repairs + 1):
        futures = [(i, judge.ask(asked[i])) for i in places]
        judge.settle()
        places = []
        for i, future in futures:
            judgement = future.result()
            found[i] = _read(form, judgement, found[i].tokens)
            # A judge that wrote nothing had no room, and would have less for a longer question.
            if found[i].value is None and judgement.text:
                messages = (*asked[i].messages, *mend(judgement.text, found[i].error))
                asked[i] = replace(asked[i], messages=messages, stream=stream_key(asked[i].stream, "again", attempt))
                places.append(i)
    return found


def _read(form: CritiqueForm, judgement: Judgement, tokens: int) -> Critique:
    tokens += judgement.tokens
    read, error = reading(form.read, judgement.text, judgement.finished)
    # The end of a text that was cut off may be half a number.
    if read is not None and form.style == "lines" and not judgement.finished:
        read, error = None, "the answer was cut off"
    return Critique(None, error=error, text=judgement.text, tokens=tokens) if read is None else replace(read, tokens=tokens)
