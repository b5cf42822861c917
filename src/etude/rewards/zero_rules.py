"""Zero rules: translations of kinds that are worth nothing, whoever scores them.

The rules are those that SSR-Zero's judge is told (arXiv:2505.16637), as far as they can be told without a judge. A judge that likes what they forbid is then never asked.
"""

from __future__ import annotations

import re
from typing import Literal

from rapidfuzz.distance import Levenshtein

from etude.tasks.languages import in_language, pieces

ZeroRule = Literal["copied", "several", "language", "addressed"]
ZERO_RULES: tuple[ZeroRule, ...] = ("copied", "several", "language", "addressed")
COPIED = 0.9
"""Word similarity with the source from which a candidate counts as copied."""

_ALTERNATIVES = re.compile(r"\n+|\s/\s|\s\|\s|\s\|\|\s")
_ADDRESSED = re.compile(r"\b(?:scores?|ratings?|rated?|grades?|points?|judges?)\b|\b\d+\s*/\s*100?\b", re.IGNORECASE)


def broken_rules(candidate: str, source: str, language: str) -> tuple[ZeroRule, ...]:
    """The rules that a candidate breaks, in their fixed order.

    - copied: its words are (nearly) the source's, in their order.
    - several: it has more parts than the source, parted by line breaks, ` / ` or ` | `: several translations.
    - language: it is not in the target language, where that can be told (`etude.tasks.languages`).
    - addressed: it speaks of scores or points, or gives a mark such as 95/100, and the source does not: it talks to the judge.
    """
    broken = {
        "copied": Levenshtein.normalized_similarity(pieces(candidate.casefold()), pieces(source.casefold())) >= COPIED,
        "several": len(_ALTERNATIVES.split(candidate.strip())) > len(_ALTERNATIVES.split(source.strip())),
        "language": in_language(candidate, language) is False,
        "addressed": _ADDRESSED.search(candidate) is not None and _ADDRESSED.search(source) is None,
    }
    return tuple(rule for rule in ZERO_RULES if broken[rule])
