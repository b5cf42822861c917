"""What `etude experiment` runs: a study asks one question of a simulation or of a model, over seeds, and answers with numbers, a table and charts.

A module of this folder is a study when it has `StudySettings`, a dataclass of options, and `study(settings) -> Findings`. Its name on the command line is the
file's with hyphens, and the first line of its docstring says what it is about. Claims use the same modules by another door: a function(seed, settings, budget)
-> dict of floats.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
