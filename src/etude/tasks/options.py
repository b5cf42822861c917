"""Settings that stand behind a name on the command line: `NAME:option=value,option=value`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from etude.errors import InputError

_BETWEEN = re.compile(r",(?![^\[]*\])")
"""A comma that is not inside a list."""


def settings_in(text: str, of: str, known: Mapping[str, str] | None = None, *, example: str = "") -> dict[str, Any]:
    """The settings in `option=value,option=value`, each value read as YAML reads it: numbers are numbers, `[1,2]` is a list.

    of: where they were given, for messages. known: options there are, with what each is for; None where whoever takes the settings knows better. example: some that work.
    Raises InputError for what is no setting, and for an option that is not known.
    """
    settings: dict[str, Any] = {}
    for setting in filter(None, _BETWEEN.split(text)):
        option, equals, value = (part.strip() for part in setting.partition("="))
        if not equals or (known is not None and option not in known):
            options = ", options being " + ", ".join(f"{name} ({use})" for name, use in known.items()) if known is not None else ""
            raise InputError(f"{of}: {setting!r} is no setting; expected option=value{options}{f', for example {example}' if example else ''}")
        settings[option] = yaml.safe_load(value)
    return settings
