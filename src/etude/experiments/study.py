"""What `etude experiment` runs: a study asks one question of a simulation or of a model, over seeds, and answers with numbers, a table and charts.

A module of this folder is a study when it has `StudySettings`, a dataclass of options, and `study(settings) -> Findings`. Its name on the command line is the
file's with hyphens, and the first line of its docstring says what it is about. Claims use the same modules by another door: a function(seed, settings, budget)
-> dict of floats.

A study that takes minutes does its work in parts, `part(name, work)`: whoever watches sees which one is under way, and after an interruption those that were done
are not done again.
"""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.durable import replace_file
from etude.errors import InputError, nearest
from etude.viewer.charts import Chart


@dataclass(frozen=True)
class Table:
    """Rows of texts under columns; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Findings:
    """What a study found. values: plain JSON values, everything that tables and charts show. charts: by the name of their file."""

    values: Mapping[str, Any]
    tables: Sequence[Table]
    charts: Mapping[str, Chart] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A study that can be run: the class of its options, and the function of them."""

    name: str
    settings: type
    run: Callable[[Any], Findings]


class Parts:
    """What the parts of a study came to, in a file as long as not all are there.

    file: None keeps nothing; one that was written for other settings, or cannot be read, is not looked at. show: is told the name of the part that is under way.
    """

    def __init__(self, file: Path | None = None, settings: Any = None, show: Callable[[str], None] = lambda _: None) -> None:
        self.file = file
        self.show = show
        self._settings = json.loads(json.dumps(settings, default=str))
        self._done: dict[str, Any] = {}
        if file is not None and file.is_file():
            try:
                record = json.loads(file.read_text())
            except ValueError:
                record = None
            if isinstance(record, dict) and record.get("settings") == self._settings:
                self._done = record["parts"]

    def __len__(self) -> int:
        return len(self._done)

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work` returns, as JSON has it; it is not called where that is known."""
        self.show(name)
        if name not in self._done:
            self._done[name] = json.loads(json.dumps(work()))
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self.file, json.dumps({"settings": self._settings, "parts": self._done}))
        return self._done[name]

    def finish(self) -> None:
        """All is done: the file goes."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


_parts: ContextVar[Parts | None] = ContextVar("parts", default=None)


@contextmanager
def in_parts(parts: Parts) -> Iterator[None]:
    """Studies that run in this context keep and tell their parts by these."""
    token = _parts.set(parts)
    try:
        yield
    finally:
        _parts.reset(token)


def part(name: str, work: Callable[[], Any]) -> Any:
    """Do a part of a study whose name no other part has, or take what it came to before: plain JSON values."""
    parts = _parts.get()
    return (Parts() if parts is None else parts)(name, work)


def known_studies() -> dict[str, str]:
    """Name -> what it is about, from the files' text: none is imported, so that listing them loads no torch."""
    import etude.experiments as package

    found: dict[str, str] = {}
    for folder in package.__path__:
        for entry in pkgutil.iter_modules([folder]):
            tree = ast.parse((Path(folder) / f"{entry.name}.py").read_text())
            if any(isinstance(node, ast.FunctionDef) and node.name == "study" for node in tree.body):
                found[entry.name.replace("_", "-")] = (ast.get_docstring(tree) or "").splitlines()[0].rstrip(".")
    return found


def load_study(name: str) -> Study:
    """The study of a name. Raises InputError for an unknown one."""
    known = known_studies()
    if name not in known:
        raise InputError(f"there is no experiment {name!r}.{nearest(name, known)} `etude experiment` lists them: {', '.join(known)}")
    module = importlib.import_module(f"etude.experiments.{name.replace('-', '_')}")
    return Study(name, module.StudySettings, module.study)
