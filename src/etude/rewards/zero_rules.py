"""What a translation has to be before anybody judges it: one answer in the asked form, and none of the kinds that are worth nothing whoever scores them.

The rules are those that SSR-Zero's judge is told (arXiv:2505.16637), as far as they can be told without a judge. A judge that likes what they forbid is then never asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Literal

from rapidfuzz.distance import Levenshtein

from etude.tasks.answers import final_answer, follows_convention
from etude.tasks.languages import in_language

ZeroRule = Literal["copied", "several", "language", "addressed"]
ZERO_RULES: tuple[ZeroRule, ...] = ("copied", "several", "language", "addressed")
COPIED = 0.9
"""Word similarity with the source from which a candidate counts as copied."""

_QUOTES = {'"': '"', "'": "'", "“": "”", "”": "”", "„": "“”", "«": "»", "»": "«", "‹": "›", "‘": "’", "‚": "‘’", "「": "」", "『": "』", "`": "`"}
_ALTERNATIVES = re.compile(r"\n+|\s/\s|\s\|\s|\s\|\|\s")
_ADDRESSED = re.compile(r"\b(?:scores?|ratings?|rated?|grades?|points?|judges?)\b|\b\d+\s*/\s*100?\b", re.IGNORECASE)


def translation_in(text: str, tag: str = "") -> str | None:
    """The translation that a whole response gives; None where the response does not have the asked form.

    With a tag: exactly one `<tag>...</tag>` with something in it, and nothing behind it. Without: exactly one line `answer: ...`, the last thing in the text.
    """
    if not tag:
        return final_answer(text) if follows_convention(text) else None
    opening, closing = f"<{tag}>", f"</{tag}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    _, _, rest = text.partition(opening)
    inside, found, behind = rest.partition(closing)
    return inside.strip() or None if found and not behind.strip() else None


def without_wrapping(candidate: str, source: str) -> str:
    """A candidate in the form in which it is judged and measured: composed characters, single spaces in a line, no quotation marks around the whole where the source
    has none. What a judge that shares the habit does not mind can then neither be rewarded nor spoil a metric."""
    text = "\n".join(" ".join(line.split()) for line in unicodedata.normalize("NFC", candidate).strip().splitlines())
    if not is_quoted(source):
        while is_quoted(text):
            text = text[1:-1].strip()
    return text


def is_quoted(text: str) -> bool:
    """Whether one pair of quotation marks stands around the whole text."""
    bare = text.strip()
    if len(bare) < 3 or bare[-1] not in _QUOTES.get(bare[0], ""):
        return False
    inside = bare[1:-1]
    return bare[0] not in inside and bare[-1] not in inside


def broken_rule(candidate: str, source: str, language: str, rules: Collection[str] = ZERO_RULES) -> str | None:
    """The first of the switched-on rules that a candidate breaks, None for one that breaks none.

    - copied: its words are (nearly) the source's, in their order.
    - several: it has more parts than the source, parted by line breaks, ` / ` or ` | `: several translations.
    - language: it is not in the target language, where that can be told (`etude.tasks.languages`).
    - addressed: it speaks of scores or points, or gives a mark such as 95/100, and the source does not: it talks to the judge.
    """
    tests = {
        "copied": lambda: Levenshtein.normalized_similarity(candidate.casefold().split(), source.casefold().split()) >= COPIED,
        "several": lambda: len(_ALTERNATIVES.split(candidate.strip())) > len(_ALTERNATIVES.split(source.strip())),
        "language": lambda: in_language(candidate, language) is False,
        "addressed": lambda: _ADDRESSED.search(candidate) is not None and _ADDRESSED.search(source) is None,
    }
    return next((name for name in ZERO_RULES if name in rules and tests[name]()), None)
