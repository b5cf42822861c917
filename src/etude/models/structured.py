"""Answers that have to be objects: asked for with a schema, checked, and asked for again where they can't be read.

A server that enforces schemas gets it with the request. One that does not, a model that runs here and a scripted one are told in words, and shown what was wrong with their
answer a bounded number of times. What can't be read after that stays unread: nothing is made up for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from etude.errors import InputError
from etude.models.replies import Reply
from etude.models.responders import Asked, Responder
from etude.models.sampling import SamplingParams
from etude.models.schemas import Schema, Unreadable
from etude.types import Message

T = TypeVar("T")


@dataclass(frozen=True)
class Structured(Generic[T]):
    """What was read. value: None where nothing could be, and then `error` says why. replies: everything that was answered on the way, the last one being what was read."""

    value: T | None
    error: str
    replies: tuple[Reply, ...]


def ask_structured(
    responder: Responder,
    asked: Sequence[Asked],
    kind: type[T] | Schema[T],
    params: SamplingParams,
    *,
    key: Sequence[int | str],
    repairs: int = 2,
    told: bool = True,
) -> list[Structured[T]]:
    """An object of a dataclass or pydantic model from each conversation.

    repairs: how often an unreadable answer may be asked for again. told: the form is described at the end of the last message; switch it off where the conversation says it
    already. Raises InputError for a kind that describes no object, and whatever answering raises.
    """
    if repairs < 0:
        raise InputError(f"repairs is {repairs}; expected 0 or more")
    schema = kind if isinstance(kind, Schema) else Schema.of(kind)
    running = [replace(each, messages=_with_form(each.messages, schema.instruction) if told else each.messages, schema=schema) for each in asked]
    found: list[Structured[T]] = [Structured(None, "", ()) for _ in asked]
    places = list(range(len(asked)))
    for attempt in range(repairs + 1):
        if not places:
            break
        rows = responder.replies([running[i] for i in places], params, samples=1, key=(*key, "attempt", attempt))
        again = []
        for i, (reply,) in zip(places, rows, strict=True):
            value, error = reading(schema.read, reply.text, reply.finished)
            found[i] = Structured(value, error, (*found[i].replies, reply))
            if value is None:
                running[i] = replace(running[i], messages=(*running[i].messages, *mend(reply.text, error)))
                if responder.fits(running[i].messages, params.max_new_tokens):
                    again.append(i)
        places = again
    return found


def reading(read: Callable[[str], T], text: str, finished: bool) -> tuple[T | None, str]:
    """What a reader takes from a text, and why it takes nothing. A text that is cut off is read too: what matters may stand in its whole part."""
    try:
        return read(text), ""
    except Unreadable as error:
        return None, str(error) if finished else f"the answer was cut off; {error}"


def mend(text: str, error: str) -> tuple[Message, Message]:
    """The turns that ask for an unreadable answer again."""
    return Message("assistant", text or "(no answer)"), Message(
        "user", f"That can't be read: {error}. Give the whole answer again, in the form that was asked for."
    )


def _with_form(messages: tuple[Message, ...], instruction: str) -> tuple[Message, ...]:
    *before, last = messages
    return (*before, replace(last, content=f"{last.content}\n\n{instruction}"))
