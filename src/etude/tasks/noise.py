"""Wrong demonstrations on purpose: what a method makes of data that are partly wrong can only be measured where it is known which parts are."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal

NoiseKind = Literal["tokens", "whole"]
"""What is replaced: single tokens, which gives slips that a model finds implausible where they stand; or whole demonstrations, which gives fluent answers to other tasks."""


def with_wrong_tokens(tokens: Sequence[int], pool: Sequence[int], share: float, random: Random) -> list[int]:
    """Each token replaced, with probability `share`, by one of `pool` that differs from it. A token that is all there is in the pool stays as it is."""
    result = list(tokens)
    for place, token in enumerate(tokens):
        if random.random() < share and any(t != token for t in pool):
            while result[place] == token:
                result[place] = random.choice(pool)
    return result


def with_another(text: str, pool: Sequence[str], share: float, random: Random) -> str:
    """The text, or with probability `share` one of `pool` that differs from it, where there is one."""
    others = [t for t in pool if t != text]
    return random.choice(others) if others and random.random() < share else text
