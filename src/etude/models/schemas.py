"""Forms that an answer must have: JSON schemas from dataclasses and pydantic models, and strict reading of what a model wrote instead."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from etude.errors import InputError

T = TypeVar("T")

THOUGHT = re.compile(r"^.*</think>", re.DOTALL | re.IGNORECASE)
"""What a reasoning model thinks before it answers."""
_OBJECT = re.compile(r"\{\s*[\"}]")
_NAME = re.compile(r"[^a-zA-Z0-9_-]")


class Unreadable(ValueError):
    """A text does not have the form that was asked for. The message says what is wrong, in words that a model can mend it by."""


@dataclass(frozen=True, eq=False)
class Schema(Generic[T]):
    """A JSON object with named fields. `plain` is its JSON schema, in which every field is required and no other is allowed, as servers that enforce schemas want it."""

    name: str
    plain: Mapping[str, Any]
    adapter: TypeAdapter[T] = field(repr=False)

    @classmethod
    def of(cls, kind: type[T]) -> Schema[T]:
        """From a dataclass or a pydantic model. Raises InputError for anything else, and for fields of types that JSON does not know."""
        if not isinstance(kind, type) or not (is_dataclass(kind) or issubclass(kind, BaseModel)):
            raise InputError(f"{kind!r} describes no JSON object; expected a dataclass or a pydantic model")
        try:
            adapter = TypeAdapter(kind)
            plain = adapter.json_schema()
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise InputError(f"{kind.__name__} has a field that JSON cannot hold: {str(error).splitlines()[0]}") from error
        return cls(_NAME.sub("_", kind.__name__)[:64], _strict(plain), adapter)

    @property
    def response_format(self) -> dict[str, Any]:
        """As the chat completions API takes it."""
        return {"type": "json_schema", "json_schema": {"name": self.name, "schema": self.plain, "strict": True}}

    @property
    def instruction(self) -> str:
        """What tells a model of it that nothing else constrains."""
        return f"Answer with one JSON object that fits this schema, and with nothing else:\n{json.dumps(self.plain, ensure_ascii=False)}"

    def read(self, text: str) -> T:
        """The object that a text holds, alone, in a code block or between words.

        Types are taken at their word: "3" is no number. Raises Unreadable where there is none, where none fits, where it breaks off or has a key twice, and where
        different ones fit.
        """
        objects = json_objects(THOUGHT.sub("", text))
        if not objects:
            raise Unreadable("there is no JSON object in it")
        fitting: list[T] = []
        wrong = ""
        for each in objects:
            try:
                value = self.adapter.validate_json(json.dumps(each), strict=True)
            except ValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']}" for e in error.errors(include_url=False)[:3])
            else:
                fitting += [value] if value not in fitting else []
        if not fitting:
            raise Unreadable(wrong)
        if len(fitting) > 1:
            raise Unreadable(f"it holds {len(fitting)} different objects of this form, where one was asked for")
        return fitting[0]


def json_objects(text: str) -> list[dict[str, Any]]:
    """All JSON objects of a text, outermost ones only, in order. Braces that open no object, as in `{a, b}`, are prose.

    Raises Unreadable for an object that breaks off or is no JSON: what stands in it may not mean what it seems to.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_without_twice, parse_constant=_no_constant)
    found: list[dict[str, Any]] = []
    place = 0
    while (match := _OBJECT.search(text, place)) is not None:
        try:
            value, place = decoder.raw_decode(text, match.start())
        except json.JSONDecodeError as error:
            raise Unreadable(f"it is not JSON: {error.msg} at character {error.pos}") from error
        except RecursionError as error:
            raise Unreadable("its JSON is nested too deeply") from error
        found.append(value)
    return found


def _without_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Unreadable(f"the key {twice[0]!r} stands in one object twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise Unreadable(f"{name} is no JSON number")


def _strict(schema: Any) -> Any:
    """A JSON schema with every property of every object required, none besides them, and without defaults."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # Under `properties` and `$defs` names are the user's: a field may be called `default`.
    inner = {
        name: {key: _strict(each) for key, each in value.items()} if name in ("properties", "$defs") else _strict(value)
        for name, value in schema.items()
        if name != "default"
    }
    if isinstance(inner.get("properties"), dict) and inner.get("type") == "object":
        inner |= {"required": list(inner["properties"]), "additionalProperties": False}
    return inner
