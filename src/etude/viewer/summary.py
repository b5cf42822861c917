"""What a terminal shows when a run has ended: what changed, what it cost, where everything is, what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from etude.run import DRAWINGS
from etude.searching import SEARCH
from etude.summary import Summary
from etude.viewer.changes import changes, difference_text
from etude.viewer.live import open_console
from etude.viewer.numbers import interval_text, ledger_rows, title_of, value_text
from etude.viewer.record import RunRecord, read_run
from etude.viewer.wording import headline, remarks, weights_text

STYLES = {"up": "green", "down": "red", "same": "dim", "unknown": ""}


def print_summary(summary: Summary, *, report: Path | None = None, model: Path | None = None, console: Console | None = None) -> None:
    """Say how a run ended.

    report: the written report, if there is one. model: the folder that the improved model was exported to, if it was.
    Raises InputError when the run's folder is gone.
    """
    console = console if console is not None else open_console()
    record = read_run(summary.folder)
    # On a full disk the result may not be in the folder; what the driver returned is.
    record.result, record.ledger = summary.to_plain(), summary.ledger.to_plain()
    console.print()
    console.print(Text(headline(record), style="bold"))
    for remark in remarks(record):
        console.print(Text(f"! {remark}", style="yellow"))
    if table := change_table(record):
        console.print(Padding(table, (1, 0, 0, 0)))
    if record.ledger:
        console.print(Padding(_cost(record), (1, 0, 0, 0)))
    console.print()
    for name, value in places(summary, report, model):
        # Paths and commands are for copying: never wrapped, never highlighted.
        console.print(Text.assemble((f"{name:<9}", "dim"), value), soft_wrap=True)


def change_table(record: RunRecord) -> Table | None:
    """First against last evaluation, one row a metric; None when there were not two."""
    rows = changes(record)
    if not rows:
        return None
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("held-out")
    table.add_column(f"step {rows[0].before_step}", justify="right")
    table.add_column(f"step {rows[0].after_step}", justify="right")
    table.add_column("difference", justify="right")
    for change in rows:
        sides = [
            Text.assemble(value_text(change.name, v), (f" {interval_text(change.name, low, high)}".rstrip(), "dim"))
            for v, low, high in (change.before, change.after)
        ]
        table.add_row(
            title_of(change.name),
            *sides,
            Text(difference_text(change), style=STYLES[change.verdict] if change.name.startswith(("eval/pass", "eval/maj")) else ""),
        )
    return table


def _cost(record: RunRecord) -> Table:
    """The ledger in a line or two."""
    row = Table.grid(padding=(0, 4, 0, 0))
    row.add_row(Text("spent", style="dim"), " · ".join(f"{row.name[:1].lower()}{row.name[1:]} {row.total}" for row in ledger_rows(record.ledger)))
    return row


def places(summary: Summary, report: Path | None, model: Path | None) -> list[tuple[str, str]]:
    """Where things are and the commands that go on from here, as (name, text)."""
    found = [("run", str(summary.folder))]
    if report is not None:
        found.append(("report", str(report)))
    if model is not None and (model / SEARCH).is_file():
        found.append(("result", str(model)))
    elif model is not None:
        found.append(("model", str(model)))
        if summary.exported is not None:
            found.append(("weights", weights_text(summary.exported, summary.score_key)))
        if not (summary.folder / DRAWINGS).is_dir():
            found.append(("measure", f"etude eval {shlex.quote(str(model))}"))
            found.append(("load", f"transformers.AutoModelForCausalLM.from_pretrained({str(model)!r})"))
    taken = summary.exported["score"] if summary.exported is not None else None
    if summary.best is not None and (taken is None or taken < summary.best["score"]):
        found.append(("best", f"step {summary.best['step']:.0f}, {title_of(summary.score_key)} {value_text(summary.score_key, summary.best['score'])}"))
    return [*found, ("go on", _going_on(summary))]


def _going_on(summary: Summary) -> str:
    """The command that goes on with the run, with more to spend where it has come to its end."""
    folder = shlex.quote(str(summary.folder))
    ended = summary.status == "finished"
    if (summary.folder / SEARCH).is_file():
        evaluations = summary.ledger.task_evaluations
        spent = ended and evaluations and summary.reason.startswith("the budget")
        return f"etude search --resume {folder}" + (f" --budget {2 * evaluations}-evaluations" if spent else "")
    return f"etude train --resume {folder}" + (f" --steps {2 * summary.step}" if ended and summary.step else "")
