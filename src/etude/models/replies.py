"""What whoever answers a conversation gives back, here or over a network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from etude.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Reply:
    """One sampled answer. `length` and `prompt_length` are in tokens as the server counted them (an average where it drew several at once), NaN where it did not say."""

    text: str
    length: float
    finished: bool
    prompt_length: float = float("nan")


def count_replies(ledger: Ledger, replies: Iterable[Reply], role: str) -> None:
    """Add answers to a ledger: a call each under `role`, and the tokens written and read that are known. Answers out of a cache count like any other."""
    answers = list(replies)
    ledger.generated_tokens += round(sum(r.length for r in answers if not math.isnan(r.length)))
    ledger.prompt_tokens += round(sum(r.prompt_length for r in answers if not math.isnan(r.prompt_length)))
    ledger.count_call(role, len(answers))
