"""Typed configurations from flat or nested values, and what is wrong with those that cannot be used.

A leaf is a field that holds a value, not further fields. Leaf names are unique over a whole configuration, so a value may be given by its leaf name alone or
under the sections that it stands in: `lr: 1e-3` is `method: {learner: {lr: 1e-3}}`. Ranges come from the fields' annotations. Torch is not imported here.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

from etude.config import TrainConfig
from etude.errors import InputError, nearest
from etude.method import get_method

Source = Literal["keyword", "flag"]
C = TypeVar("C")

OBJECTS = ("tasks", "reward", "env")
"""Inputs that may be Python objects instead of specifications, when a run is started from Python."""
RESERVED = ("config", "debug", "help", "method", "resume", "slug")
"""Names that no leaf may have: the command line and YAML files use them otherwise."""


@dataclass(frozen=True)
class Leaf:
    """One field that holds a value. `sections` are the fields that lead to it, outermost first; `holder` is the object that it is an attribute of."""

    name: str
    sections: tuple[str, ...]
    hint: Any
    holder: Any

    @property
    def value(self) -> Any:
        return getattr(self.holder, self.name)


def default_config(slug: str) -> TrainConfig[Any]:
    """A run of the method as it is when nothing is said. Raises InputError for an unknown slug."""
    method = get_method(slug)
    return merged(TrainConfig(method=method.Config()), method.defaults, f"defaults of {slug}")


def build_config(slug: str, **settings: Any) -> TrainConfig[Any]:
    """The configuration of a run from flat keywords.

    `tasks`, `reward` and `env` may be Python objects. Raises InputError for an unknown method or keyword, and for a value of the wrong type or out of range.
    """
    return with_settings(default_config(slug), settings)


def with_settings(config: C, settings: Mapping[str, Any]) -> C:
    """A copy of a configuration with some leaves set by keywords, inputs as Python objects among them, and every leaf checked. Raises InputError."""
    objects = {name: value for name, value in settings.items() if name in OBJECTS and is_object(value)}
    config = merged(config, {name: value for name, value in settings.items() if name not in objects})
    known = leaves(config)
    for name, value in objects.items():
        setattr(known[name].holder, name, value)
    check_config(config)
    return config


def leaves(config: Any) -> dict[str, Leaf]:
    """Every leaf of a configuration by its name.

    Raises TypeError when two have the same name, or one a reserved name: an error of whoever wrote the configuration.
    """
    found: dict[str, Leaf] = {}
    for leaf in _walk(config, ()):
        if leaf.name in found or leaf.name in RESERVED:
            other = f"{'.'.join((*found[leaf.name].sections, leaf.name))} has it already" if leaf.name in found else "it is reserved"
            raise TypeError(f"the option {'.'.join((*leaf.sections, leaf.name))} needs another name: {other}")
        found[leaf.name] = leaf
    return found


def _walk(holder: Any, sections: tuple[str, ...]) -> Iterator[Leaf]:
    hints = _hints(type(holder))
    for f in fields(holder):
        value = getattr(holder, f.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _walk(value, (*sections, f.name))
        else:
            yield Leaf(f.name, sections, hints[f.name], holder)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def merged(config: C, values: Mapping[str, Any], source: str = "") -> C:
    """A copy of a configuration with some leaves set, from a flat or nested mapping. Hyphens in names count as underscores.

    source: where the values are from, for messages. Raises InputError for an unknown name, a name given twice, and a value of the wrong type or out of range.
    """
    config = deepcopy(config)
    known = leaves(config)
    where = f"{source}: " if source else ""
    given: set[str] = set()
    for name, value, inside in _flattened(values, known, (), where):
        leaf = known.get(name)
        if leaf is None:
            raise InputError(f"{where}there is no option {name!r}.{nearest(name, [*known, *_section_names(known)])}")
        if leaf.sections[: len(inside)] != inside:
            raise InputError(f"{where}{name} is no option of {'.'.join(inside)}; it belongs into {'.'.join(leaf.sections)}, or to the top")
        if name in given:
            raise InputError(f"{where}{name} is given twice; keep one of them")
        given.add(name)
        setattr(leaf.holder, name, _typed(leaf, value, f"{where}{name}"))
    return config


def _section_names(known: Mapping[str, Leaf]) -> set[str]:
    return {section for leaf in known.values() for section in leaf.sections}


def _flattened(values: Mapping[str, Any], known: Mapping[str, Leaf], inside: tuple[str, ...], where: str) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """(name, value, sections it stands in) of everything that is not a section. A section may be named without those around it."""
    paths = {leaf.sections[: i + 1] for leaf in known.values() for i in range(len(leaf.sections))}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        path = next((p for p in sorted(paths, key=len) if p[-1] == name and p[: len(inside)] == inside and len(p) > len(inside)), None)
        # A section may have a leaf of its own name: `sampler` and `learner` are both.
        if path is None or (name in known and not isinstance(value, Mapping)):
            yield name, value, inside
        elif isinstance(value, Mapping):
            yield from _flattened(value, known, path, where)
        elif value is not None:
            raise InputError(f"{where}{name} is {value!r}; expected a mapping of the options in it")


def check_config(config: Any, source: Source = "keyword") -> None:
    """Check every leaf's type and range.

    source: how messages name a leaf: as a keyword (`group_size`) or as a flag (`--group-size`).
    Raises InputError naming the leaf, its value and what was expected.
    """
    for leaf in leaves(config).values():
        if not (leaf.name in OBJECTS and is_object(leaf.value)):
            _typed(leaf, leaf.value, flag(leaf.name) if source == "flag" else leaf.name)


def flag(name: str) -> str:
    """A leaf's name as the command line knows it."""
    return f"--{name.replace('_', '-')}"


def _typed(leaf: Leaf, value: Any, name: str) -> Any:
    """The value as the leaf's type has it: '1e-3' as a float, a list as a tuple, text as a path."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()  # A number of an array library.
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    try:
        # A YAML `yes` is no number, though Python counts True as 1.
        if isinstance(value, bool) and not _accepts_bool(leaf.hint):
            raise TypeError
        return _adapter(leaf.hint).validate_python(value)
    except (ValidationError, TypeError, ValueError) as error:
        raise InputError(f"{name} is {value!r}; expected {expected(leaf.hint)}") from error


def _accepts_bool(hint: Any) -> bool:
    return hint in (bool, Any) or any(_accepts_bool(part) for part in get_args(hint) if get_origin(hint) in (Annotated, Union, types.UnionType))


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))


NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path", type(None): "nothing"}


def expected(hint: Any) -> str:
    """What a type takes, in words: 'a whole number, 1 or more'."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [text for mark in arguments[1:] for text in _bounds(mark)]
        return ", ".join([expected(arguments[0]), *([" and ".join(bounds)] if bounds else [])])
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return ", or ".join(expected(a) for a in sorted(arguments, key=lambda a: a is type(None)))
    if origin in (tuple, list):
        items = [a for a in arguments if a is not Ellipsis]
        return (
            f"a list of {len(items)}: {'; '.join(expected(a) for a in items)}"
            if origin is tuple and len(items) == len(arguments)
            else f"a list, each {expected(items[0])}"
        )
    return NAMES.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _bounds(mark: Any) -> list[str]:
    if isinstance(mark, Interval):
        return [text for part in mark for text in _bounds(part)]
    for kind, attribute, text in ((Ge, "ge", "{} or more"), (Gt, "gt", "more than {}"), (Le, "le", "at most {}"), (Lt, "lt", "less than {}")):
        if isinstance(mark, kind):
            return [text.format(getattr(mark, attribute))]
    return []


def is_object(value: Any) -> bool:
    """Whether an input is a Python object instead of a specification."""
    return value is not None and not isinstance(value, (str, os.PathLike, bool, int, float))
