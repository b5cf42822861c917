"""`etude experiment`: a study, its options as flags, its findings as tables in the terminal and as files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from rich.table import Table as Grid

from etude.durable import json_safe, replace_file
from etude.errors import InputError
from etude.experiments.study import Findings, Parts, Study, Table, in_parts, known_studies, load_study
from etude.settings import check_config

S = TypeVar("S")


@dataclass
class OutputFlags:
    """Where findings go."""

    out: Path | None = None
    """Folder for NAME.json and the charts. Default: runs/experiment-NAME."""


@dataclass
class ExperimentFlags(Generic[S]):
    """What `etude experiment` takes: the study's own options, and the folder."""

    study: S
    output: OutputFlags = field(default_factory=OutputFlags)


def experiment_command(given: list[str]) -> int:
    """Run the command; returns its exit code."""
    from etude.cli import parsed

    name = given[0] if given and not given[0].startswith("-") else None
    if name is None:
        return _listed(given)
    study = load_study(name)
    flags: ExperimentFlags = parsed(
        ExperimentFlags[study.settings],
        given[1:],
        prog=f"etude experiment {name}",
        description=f"{known_studies()[name]}.",
        default=ExperimentFlags(study.settings()),
    )
    check_config(flags, "flag")
    folder = flags.output.out or Path("runs") / f"experiment-{name}"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; expected a folder, or a name that is free")
    _run(study, flags, folder)
    return 0


def _listed(given: list[str]) -> int:
    """The studies; to standard error with exit code 2 unless help was asked for or nothing was said at all."""
    from rich.console import Console

    asked = not given or bool({"-h", "--help"} & set(given))
    if not asked:
        raise InputError(f"no experiment stands before {given[0]}; `etude experiment` lists them")
    table = Grid.grid(padding=(0, 3, 0, 0))
    for name, about in known_studies().items():
        table.add_row(f"  [bold]{name}[/]", about)
    console = Console()
    console.print("[bold]etude experiment[/] NAME \\[options]   run one; NAME --help lists its options\n", highlight=False)
    console.print(table)
    return 0


def _run(study: Study, flags: ExperimentFlags, folder: Path) -> None:
    from rich.console import Console

    watched = Console(stderr=True)
    settings = asdict(flags.study)
    with watched.status(f"{study.name} …") as status:
        parts = Parts(folder / "parts.json", settings, lambda name: status.update(f"{study.name}: {name} …"))
        if len(parts):
            watched.print(f"{parts.file} has {len(parts)} parts that an earlier run was done with; they are not done again", highlight=False)
        with in_parts(parts):
            findings = study.run(flags.study)
    written = write_findings(findings, folder, name=study.name, settings=settings)
    parts.finish()
    console = Console()
    for table in findings.tables:
        console.print(as_grid(table))
        console.print()
    for path in written:
        console.print(f"written: {path}", highlight=False, soft_wrap=True)


def write_findings(findings: Findings, folder: Path, *, name: str, settings: dict[str, object]) -> list[Path]:
    """Write NAME.json (options, numbers, tables) and each chart as SVG into a folder. Returns the paths."""
    from etude.viewer.svg import svg

    folder.mkdir(parents=True, exist_ok=True)
    record = {"experiment": name, "settings": settings, "values": findings.values, "tables": [asdict(table) for table in findings.tables]}
    files = {f"{name}.json": json.dumps(json_safe(record), indent=1, ensure_ascii=False) + "\n"}
    files |= {f"{stem}.svg": picture for stem, chart in findings.charts.items() if (picture := svg(chart)) is not None}
    for file, text in files.items():
        replace_file(folder / file, text)
    return [folder / file for file in files]


def as_grid(table: Table) -> Grid:
    """A table for the terminal."""
    grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", title=table.title, title_justify="left", title_style="bold")
    for i, column in enumerate(table.columns):
        grid.add_column(column, justify="right" if i else "left")
    for row in table.rows:
        grid.add_row(*row)
    return grid
