"""What changed between two texts, word by word, for a terminal."""

from __future__ import annotations

import difflib
import re

from rich.text import Text

GONE, COME = "red strike", "bold green"


def changed_words(before: str, after: str, *, plain: bool = False) -> Text:
    """The later text with what came marked and what went shown where it stood.

    plain: brackets instead of colours, [-gone-] and {+come+}, for a terminal without them and for files. Equal texts come back unmarked.
    """
    old, new = _words(before), _words(after)
    marks = ("[-{}-]", "{{+{}+}}") if plain else ("{}", "{}")
    shown = Text()
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            shown.append("".join(new[c:d]))
            continue
        for words, mark, style in ((old[a:b], marks[0], GONE), (new[c:d], marks[1], COME)):
            text = "".join(words)
            # White space alone that went has nothing to strike out.
            if text.strip() or (text and style == COME):
                shown.append(mark.format(text) if text.strip() else text, style="" if plain else style)
    return shown


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", text)
