"""`etude train` and `etude search`: a method, its options from flags or a file, and a run of it that begins or goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from etude.cli import console, leading, parsed, path_options
from etude.errors import InputError

if TYPE_CHECKING:
    from etude.config import TrainConfig

Command = Literal["train", "search"]

TRAIN_HELP = """[bold]etude train[/] METHOD \\[options]            begin a run
[bold]etude train[/] --config FILE.yaml          the same, method and options from a file; options given besides go before it
[bold]etude train[/] --resume DIR \\[options]     go on with a run; settings of the run (--steps, --budget, …) may change

[bold]etude train[/] METHOD --help lists the options.

[dim]methods[/]"""

SEARCH_HELP = """[bold]etude search[/] METHOD \\[options]            begin a search; its tree is shown while it grows
[bold]etude search[/] --config FILE.yaml          the same, method and options from a file; options given besides go before it
[bold]etude search[/] --resume DIR \\[options]     go on with a search; settings of the run (--budget, --steps, …) may change

[bold]etude search[/] METHOD --help lists the options.

[dim]methods[/]"""


def method_command(given: list[str], command: Command) -> int:
    """Run the command; returns its exit code: 0 well, 1 collapsed, 130 interrupted."""
    slug, rest = leading(given)
    (file, resume), rest = path_options(rest, "config", "resume", command=command)
    if slug is None and file is None and resume is None:
        return _help(rest, command)
    if file is not None and resume is not None:
        raise InputError("--config and --resume were both given; a resumed run has its own configuration")

    from etude.settings import check_config, default_config
    from etude.settings_file import file_config, saved_config

    if resume is not None:
        named, default = saved_config(resume)
        if slug is not None and slug != named:
            raise InputError(f"the run in {resume} is one of {named}, not of {slug}; leave the method out")
        slug = named
    elif file is not None:
        slug, default = file_config(file, slug)
    else:
        assert slug is not None
        default = default_config(slug)
    config = _config(slug, default, rest, command)
    check_config(config, "flag")
    return _run(slug, config, resume)


def _help(rest: list[str], command: Command) -> int:
    """What the command takes, with its methods; to standard error with exit code 2 unless it was asked for."""
    asked = any(flag in rest for flag in ("-h", "--help"))
    from rich.table import Table

    from etude.catalogue import entries

    text, example = (SEARCH_HELP, "hgm") if command == "search" else (TRAIN_HELP, "grpo")
    if rest and not asked:
        raise InputError(f"no method stands before {rest[0]}; expected one first, as in `etude {command} {example} {rest[0]} …`. `etude {command}` lists them")
    table = Table.grid(padding=(0, 3, 0, 0))
    for entry in entries():
        if entry.evolves != "nothing" and entry.searches == (command == "search"):
            table.add_row(f"  [bold]{entry.slug}[/]", entry.summary)
    screen = console(stderr=not asked)
    screen.print(text, highlight=False, soft_wrap=True)
    screen.print(table)
    return 0 if asked else 2


def _config(slug: str, default: TrainConfig[Any], rest: list[str], command: Command) -> TrainConfig[Any]:
    from etude.config import TrainConfig
    from etude.method import get_method

    method = get_method(slug)
    card = method.card
    if command == "search" and not card.searches:
        raise InputError(f"{slug} trains a model: `etude train {slug}`. `etude search` lists the methods that search")
    paper = f" ({card.paper})" if card.paper else ""
    description = (
        f"{card.name}{paper}: {card.summary}\n\nBesides the options below: --config FILE.yaml takes options from a file (flags go before it); "
        "--resume DIR goes on with a run."
    )
    return parsed(TrainConfig[method.Config], rest, prog=f"etude {command} {slug}", description=description, default=default)


def _run(slug: str, config: TrainConfig[Any], resume: Path | None) -> int:
    from etude.api import MODEL, REPORT, resume_run, start_run
    from etude.viewer import print_summary

    summary = start_run(slug, config) if resume is None else resume_run(resume, config, source="flag")
    model = summary.folder / MODEL
    print_summary(summary, report=summary.folder / REPORT, model=model if model.is_dir() else None)
    return 130 if summary.status == "interrupted" else int(summary.status == "collapsed")
