"""HTML pages that need nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import Any

import jinja2

from etude.viewer.numbers import number


def render_page(template: str, **content: Any) -> str:
    """A template of `viewer/templates` as one page of text. `written`, `script` and `script_hash` are there for it besides what is given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("etude.viewer"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(unbroken=_unbroken, number=number)
    source = environment.get_template("report.js").render()
    return environment.get_template(template).render(
        **content,
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        script=source,
        # Only this script may run, and nothing may be fetched: even text that slipped through escaping could do neither.
        script_hash=base64.b64encode(hashlib.sha256(source.encode()).digest()).decode(),
    )


def _unbroken(text: str) -> str:
    """Keep a number and its unit on one line."""
    return text.replace(" %", "\u00a0%").replace(" → ", "\u00a0→\u00a0").replace(" points", "\u00a0points")
