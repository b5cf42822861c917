"""Arms, sweeps and seeds as a person types them.

    arm      [LABEL=]METHOD[:OPTION=VALUE[,OPTION=VALUE …]]     grpo    grpo:lr=1e-4,group_size=8    mine=dapo:dynamic_sampling=false
    sweep    OPTION=VALUE,VALUE …                               lr=1e-4,3e-4,1e-3
    seeds    a number of them, or the seeds themselves          5       1000,1001,1007

Values are read as YAML reads them. A comma that no OPTION= follows goes on with the value before it, which is then a list: `betas=0.9,0.99`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from etude.errors import InputError
from etude.evals.arms import Arm, check_seeds
from etude.settings import flag

ARM_FORM = "METHOD, METHOD:OPTION=VALUE,OPTION=VALUE or LABEL=METHOD:OPTION=VALUE, as in mine=grpo:lr=1e-4,group_size=8"
SWEEP_FORM = "OPTION=VALUE,VALUE, as in lr=1e-4,3e-4,1e-3"
FIRST_REPORTED = 1000
"""A number of seeds counts from here, so that no seed on which settings were tried by hand or by a sweep is reported."""
_OPTION = re.compile(r"[A-Za-z_][\w-]*=")
_LABEL = re.compile(r"[^:=,/]+")


def parse_arm(text: str) -> Arm:
    """The arm that a text names; its own text is its name where it has no label. The method is not looked up. Raises InputError for another form."""
    head, colon, tail = text.partition(":")
    label, equals, method = head.rpartition("=")
    if not method or (equals and not _LABEL.fullmatch(label)) or (colon and not tail):
        raise InputError(f"the arm {text!r} cannot be read; expected {ARM_FORM}")
    settings: dict[str, Any] = {}
    for name, value in _assignments(tail, f"the arm {text!r}", ARM_FORM):
        if name in settings:
            raise InputError(f"the arm {text!r} says {name} twice; keep one of them")
        settings[name] = value
    return Arm(label or text, method, settings)


def _assignments(text: str, what: str, form: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, list[str]]] = []
    for part in text.split(",") if text else ():
        if _OPTION.match(part):
            name, _, value = part.partition("=")
            found.append((name.replace("-", "_"), [value]))
        elif found:
            found[-1][1].append(part)
        else:
            raise InputError(f"{what} cannot be read at {part!r}; expected {form}")
    return [(name, _value(parts[0]) if len(parts) == 1 else [_value(part) for part in parts]) for name, parts in found]


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def arm_text(arm: Arm) -> str:
    """The text that `parse_arm` makes this arm of."""
    settings = ",".join(f"{name}={value_text(value)}" for name, value in arm.settings.items())
    plain = arm.method + (f":{settings}" if settings else "")
    # An arm without a label is named as it was typed, which `1e-3` and `0.001` write differently.
    unlabelled = arm.name == plain or (arm.name.startswith(f"{arm.method}:") and parse_arm(arm.name) == arm)
    return arm.name if unlabelled else f"{arm.name}={plain}"


def value_text(value: Any) -> str:
    """A setting's value as an arm's text has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(value_text, value)) if isinstance(value, (list, tuple)) else str(value)


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """The option and the values to try. Raises InputError for another form, and for fewer than two different values."""
    found = _assignments(text, f"the sweep {text!r}", SWEEP_FORM)
    if len(found) != 1:
        raise InputError(f"the sweep {text!r} cannot be read; expected {SWEEP_FORM}, and --sweep once for every option")
    name, values = found[0]
    if not isinstance(values, list) or len({str(v) for v in values}) < len(values):
        raise InputError(f"the sweep {text!r} has too few different values; expected at least two, {SWEEP_FORM}")
    return name, values


def parse_seeds(seeds: str | int | Sequence[int], first: int = FIRST_REPORTED) -> list[int]:
    """A number of seeds, counted from `first`, or the seeds themselves. Raises InputError for anything else."""
    if isinstance(seeds, str):
        parts = [part.strip() for part in seeds.removesuffix(",").split(",")]
        if not all(part.isdecimal() for part in parts):
            raise InputError(f"seeds is {seeds!r}; expected a number of them, as 5, or the seeds themselves, as 1000,1001,1007 (a single one: 1000,)")
        seeds = list(map(int, parts)) if "," in seeds else int(parts[0])
    found = list(range(first, first + seeds)) if isinstance(seeds, int) else list(seeds)
    check_seeds(found)
    return found


def command_line(arms: Sequence[Arm], options: Mapping[str, Any]) -> str:
    """The `etude compare` command of these arms and options, quoted for a shell. Options that are None or an empty list are left out."""
    words = ["etude", "compare", *map(arm_text, arms)]
    for name, value in options.items():
        if value is None or (isinstance(value, (list, tuple)) and not value):
            continue
        if isinstance(value, bool):
            words.append(flag(name) if value else f"--no-{flag(name)[2:]}")
        else:
            words += [flag(name), *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]
    return shlex.join(words)
