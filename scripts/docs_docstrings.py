"""Extension of the API reference: keeps the lines of a docstring apart that say something of their own.

Docstrings here are prose. A line that describes an argument (`name: ...`), or says what is returned or raised, begins anew under the line before; Markdown would
run the two together.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_OWN_LINE = re.compile(r"\n(?=(?:Returns|Raises|Source|From)\b|`?[A-Za-z_][\w, `]{0,40}`?: )")


def apart(text: str) -> str:
    """The docstring with such lines as paragraphs of their own."""
    return _OWN_LINE.sub("\n\n", text)


class Paragraphs(Extension):
    """Rewrites every docstring as it is read."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = apart(obj.docstring.value)
