"""Texts with fields, such as prompts that a user may exchange, and text of a policy's made fit to stand in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from etude.errors import InputError

_FIELD = re.compile(r"\{(\w*)\}")
# What opens a turn or closes a tag in the usual formats: <|end|>, </solution>, <s>, [INST].
_MARKUP = re.compile(r"<(?=[|/!A-Za-z])|\[(?=/?[A-Z_]+\])")


def filled(template: str, fields: Mapping[str, str]) -> str:
    """A template with its `{field}`s replaced, all at once, so that a field's content is never taken for a field."""
    return _FIELD.sub(lambda match: fields.get(match[1], match[0]), template)


def escaped(text: str) -> str:
    """Text of a policy's, made harmless inside a prompt: on one line, without control characters, and a space parts the marks that could end a turn, close a tag or
    open an instruction."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return _MARKUP.sub(lambda mark: mark[0] + " ", " ".join(plain.split()))


def read_template(spec: str, option: str, *, names: Sequence[str], needs: Sequence[str], may: Sequence[str]) -> str:
    """The template that a text file holds.

    names: what else the option could have been, for messages. needs: fields that the template has to have; may: others that it can have.
    Raises InputError for a file that cannot be read, and for missing or unknown fields.
    """
    expected = f"{', '.join(names)}, or a text file with {_listed(needs)}" + (f" and, if wanted, {_listed(may)}" if may else "")
    try:
        template = Path(spec).expanduser().read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} is {spec!r}, which cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8 text'}; expected {expected}") from error
    found = set(_FIELD.findall(template))
    missing, unknown = [n for n in needs if n not in found], sorted(found - {*needs, *may})
    if missing or unknown:
        wrong = f"lacks {{{missing[0]}}}" if missing else f"has an unknown field {{{unknown[0]}}}"
        raise InputError(f"{option}: the file {spec} {wrong}; expected {expected}")
    return template


def _listed(fields: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in fields)
