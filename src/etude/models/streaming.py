"""Answers as they are written, piece by piece: for somebody who watches, and may have seen enough."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from etude.errors import InputError
from etude.models.remote import Endpoint
from etude.models.sampling import FinishedEvent, Request, SamplingParams, TokenEvent
from etude.types import Message

if TYPE_CHECKING:
    from etude.models.language import LanguageModel

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes the first tokens of a character to, before its last one is there."""


class Speaker(Protocol):
    """Whoever answers in a conversation."""

    def say(self, messages: Sequence[Message], params: SamplingParams, stream: int) -> Iterator[str]:
        """The next turn in pieces. `stream` names its random numbers. An interrupt ends it with KeyboardInterrupt, after which the speaker can go on with other turns."""
        ...

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether a conversation leaves room for an answer."""
        ...


@dataclass
class LocalSpeaker:
    """A model that runs here. room: tokens that an answer should find free in the context."""

    policy: LanguageModel
    room: int

    def say(self, messages: Sequence[Message], params: SamplingParams, stream: int) -> Iterator[str]:
        sampler = self.policy.sampler
        request = sampler.add(Request(tuple(self.policy.render(messages)), params, stream=stream))
        tokens: list[int] = []
        shown, running = "", True
        try:
            # An interrupt in the middle of a forward pass would leave half of a step behind.
            with held_interrupts() as asked:
                while running:
                    for event in sampler.step(token_events=True):
                        if isinstance(event, FinishedEvent):
                            running, text = False, event.completion.text
                        elif isinstance(event, TokenEvent):
                            tokens.append(event.token)
                            text = self.policy.decode(tokens)
                        else:
                            continue
                        # The last word on the text is the finished completion's, without stop strings; what was shown cannot be taken back.
                        if text.startswith(shown) and (not running or not text.endswith(UNFINISHED)):
                            yield text[len(shown) :]
                            shown = text
                    if asked.is_set():
                        raise KeyboardInterrupt
        finally:
            if running:
                sampler.abort(request)

    def fits(self, messages: Sequence[Message]) -> bool:
        return len(self.policy.render(messages)) + self.room <= self.policy.context_length


@dataclass
class RemoteSpeaker:
    """A model behind an endpoint."""

    endpoint: Endpoint

    def say(self, messages: Sequence[Message], params: SamplingParams, stream: int) -> Iterator[str]:
        return self.endpoint.stream(messages, params, seed=stream % 2**31)

    def fits(self, messages: Sequence[Message]) -> bool:
        return True


@contextmanager
def held_interrupts() -> Iterator[threading.Event]:
    """While this lasts, Ctrl-C sets an event and does nothing else; the second one interrupts at once. Only the main thread can hold interrupts; elsewhere nothing changes."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    earlier = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, earlier)


def without_oldest(system: Sequence[Message], messages: Sequence[Message], questions: Sequence[int], speaker: Speaker) -> int:
    """From which message on a conversation is shown, so that it fits behind the system's: whole exchanges are left out, the oldest first.

    questions: where each exchange begins. Raises InputError where the newest one alone is too long.
    """
    for start in questions:
        if speaker.fits([*system, *messages[start:]]):
            return start
    raise InputError("what was said since your last question leaves no room for an answer in the model's context; ask again with fewer looks, or shorter")
