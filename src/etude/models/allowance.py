"""Hard limits on what is asked over a network: nothing is sent that could cost more than is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

from etude.errors import BudgetExhausted, InputError
from etude.ledger import Ledger
from etude.types import Message

ROLE = "endpoint"
"""The role that answers from an endpoint are counted under in `Allowance.spent`."""
FRAME_TOKENS = 16
"""Tokens that a chat template may put around a message."""


def most_tokens(messages: Sequence[Message]) -> int:
    """Tokens that a conversation has at most, whatever the tokenizer: a token has at least a byte, and every message a frame."""
    return sum(len(m.content.encode()) + FRAME_TOKENS for m in messages)


@dataclass(slots=True)
class Charge:
    """What a request turned out to cost. `answers` 0: nothing, since it failed."""

    answers: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0


class Allowance:
    """Tokens, read and written, and calls that may be spent (0: without limit). A call is an answer, however many of them one request asks for.

    What was spent is in `spent`, a ledger. Answers that come out of a cache cost nothing. A request is charged in advance with the most that it could cost, so that the
    limits hold whatever runs at the same time; what is left at the end may be less than one request could need.
    """

    def __init__(self, tokens: int = 0, calls: int = 0) -> None:
        if tokens < 0 or calls < 0:
            raise InputError(f"the limits are {tokens} tokens and {calls} calls; expected 0 (no limit) or more")
        self.tokens, self.calls = tokens, calls
        self.spent = Ledger()
        self._reserved_tokens = self._reserved_calls = 0
        self._changed = Condition()

    @contextmanager
    def reserved(self, tokens: int, calls: int) -> Iterator[Charge]:
        """Room for a request that costs so much at most. Inside, write into the charge what it did cost.

        Waits while others that run could still leave enough. Raises BudgetExhausted where there is not enough even if they cost nothing.
        """
        with self._changed:
            while not self._fits(tokens + self._reserved_tokens, calls + self._reserved_calls):
                if not self._fits(tokens, calls):
                    raise BudgetExhausted(self._told(tokens, calls))
                self._changed.wait()
            self._reserved_tokens += tokens
            self._reserved_calls += calls
        charge = Charge()
        try:
            yield charge
        finally:
            with self._changed:
                self._reserved_tokens -= tokens
                self._reserved_calls -= calls
                self.spent.prompt_tokens += charge.prompt_tokens
                self.spent.generated_tokens += charge.generated_tokens
                if charge.answers:
                    self.spent.count_call(ROLE, charge.answers)
                self._changed.notify_all()

    @property
    def spent_tokens(self) -> int:
        """Tokens read and written."""
        return self.spent.prompt_tokens + self.spent.generated_tokens

    def _fits(self, tokens: int, calls: int) -> bool:
        return not (self.tokens and self.spent_tokens + tokens > self.tokens) and not (self.calls and self.spent.calls + calls > self.calls)

    def _told(self, tokens: int, calls: int) -> str:
        if self.calls and self.spent.calls + calls > self.calls:
            return f"the limit of {self.calls} calls leaves no room for a request of {calls}: {self.spent.calls} are spent; allow more, or ask less"
        return (
            f"the limit of {self.tokens} tokens leaves no room for a request of up to {tokens}: {self.spent_tokens} are spent; allow more, ask less, or limit the length "
            "of answers"
        )
