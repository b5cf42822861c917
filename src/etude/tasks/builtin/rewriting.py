"""Other wordings of the built-in families' questions, by rule: exact, free of cost, and as far from the original as a rule goes."""

from __future__ import annotations

import re
from collections.abc import Callable

from etude.tasks.builtin.wording import reordered

_EXPRESSION = re.compile(r"(?P<opening>compute |quick: |use calc: )(?P<expression>[0-9+\-*() ]+)")
_REMAINDER = re.compile(r"(?P<expression>\d+[+\-*]\d+) mod (?P<modulus>\d+)")
_COMPARISON = re.compile(r"(?P<kind>order up|order down|(?:second )?(?:largest|smallest)): (?P<numbers>[\d.]+(?: [\d.]+)+)")
_STORY = re.compile(r"(?:tom|ana|kim|lee|\d+ boxes).*how many (?:left|now|in all)\?", re.DOTALL)
_NEXT = {
    **dict(zip(("tom", "ana", "kim", "lee"), ("ana", "kim", "lee", "tom"), strict=True)),
    **dict(zip(("apples", "pens", "coins", "books"), ("pens", "coins", "books", "apples"), strict=True)),
}
_PARTS = re.compile("|".join(rf"\b{word}\b" for word in _NEXT))

FAMILIES = ("arithmetic", "calculator", "check-and-fix", "compare", "modular", "two-views", "word-problems")
"""Families whose questions the rules know."""


def by_rule(text: str, *, words: bool = False) -> str | None:
    """Another wording of a built-in question, or None where the rules know none or it would be the same.

    Sums get their operands in another order ('compute 9*8+19' -> 'compute 19+8*9'), with `words` also their operators in words; numbers to be compared come in the
    reverse order; people and things in a story become others. An instruction before the question stays.
    """
    *before, question = text.split("\n")
    for pattern, rewrite in _RULES:
        if found := pattern.fullmatch(question):
            try:
                turned = rewrite(found, words)
            except ValueError:
                return None
            return "\n".join([*before, turned]) if turned != question else None
    return None


def _turned_expression(found: re.Match[str], words: bool) -> str:
    return found["opening"] + reordered(found["expression"], words=words)


def _turned_remainder(found: re.Match[str], words: bool) -> str:
    return f"{reordered(found['expression'], words=words)} mod {found['modulus']}"


def _turned_comparison(found: re.Match[str], _words: bool) -> str:
    return f"{found['kind']}: {' '.join(reversed(found['numbers'].split()))}"


def _other_story(found: re.Match[str], _words: bool) -> str:
    return _PARTS.sub(lambda part: _NEXT[part[0]], found[0])


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], bool], str]], ...] = (
    (_EXPRESSION, _turned_expression),
    (_REMAINDER, _turned_remainder),
    (_COMPARISON, _turned_comparison),
    (_STORY, _other_story),
)
