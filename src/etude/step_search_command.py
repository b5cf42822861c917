"""`etude eval MODEL --protocol search`: the same tokens on every question spent in several ways, to the terminal and a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.durable import json_safe, replace_file
from etude.errors import InputError
from etude.search.step_settings import StepSearchMeasureConfig
from etude.settings import check_config

if TYPE_CHECKING:
    from etude.evals.step_search import WayReport

DESCRIPTION = (
    "Spend the same number of generated tokens on every question in several ways, and count right answers: MCTS* over the steps of a solution, a beam (tree of thoughts), and "
    "whole solutions of which the one with the highest value is taken, or the most common answer. MODEL: tiny, smollm2, a Hugging Face folder or hub id, a run's folder, or "
    "a checkpoint's. --out FILE.json writes every answer to a file."
)


def step_search_command(model: str | None, given: list[str], out: Path | None) -> int:
    """Run the command; returns its exit code."""
    from rich.console import Console

    from etude.cli import parsed
    from etude.evaluation_file import require_writable

    if model is None and not {"-h", "--help"} & set(given):
        raise InputError("no model is named; expected one first, as in `etude eval RUN --protocol search --value-model RUN/model/value`")
    prog = f"etude eval {model or 'MODEL'} --protocol search"
    config = parsed(StepSearchMeasureConfig, given, prog=prog, description=DESCRIPTION, default=StepSearchMeasureConfig())
    check_config(config, "flag")
    if out is not None:
        require_writable(out)
    from etude.api import step_search

    with Console(stderr=True).status(f"searching with {model} on {config.tasks}") as status:
        reports = step_search(str(model), config, done=lambda way, tasks: status.update(f"{way}: {tasks} tasks"))
    console = Console()
    console.print(
        f"{model} on {config.tasks}: {len(reports[0].chosen)} tasks, {config.search.search_tokens} generated tokens each",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    console.print(table(reports))
    if out is not None:
        write_file(out, reports, str(model), config)
        console.print(f"written: {out}", highlight=False, soft_wrap=True)
    return 0


def table(reports: list[WayReport]) -> Any:
    """One row a way. Calls and tokens of the value model are a task's."""
    from rich.table import Table

    from etude.viewer.numbers import percent

    found = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for title in ("way", "right", "95 % interval", "soundly", "tokens", "solutions", "values"):
        found.add_column(title, justify="left" if title == "way" else "right", no_wrap=True)
    for report in reports:
        low, high = report.interval
        count = len(report.chosen)
        found.add_row(
            report.way,
            percent(report.accuracy),
            f"{percent(low)} to {percent(high)}",
            "" if report.sound is None else percent(report.sound),
            f"{sum(report.tokens) / count:.0f}",
            f"{sum(report.found) / count:.1f}",
            f"{report.spent.task_evaluations / count:.0f}",
        )
    return found


def write_file(out: Path, reports: list[WayReport], model: str, config: StepSearchMeasureConfig) -> None:
    """Write the settings, and of each way its numbers, what it cost and every answer. Raises InputError when the disk does not take it."""
    from etude.evals.evaluate import record_of
    from etude.provenance import environment
    from etude.run import plain

    ways = {
        report.way: {
            "accuracy": report.accuracy,
            "interval": report.interval,
            "sound": report.sound,
            "spent": report.spent.to_plain(),
            "answers": [{**record_of(t), "tokens": n, "solutions": k} for t, n, k in zip(report.chosen, report.tokens, report.found, strict=True)],
        }
        for report in reports
    }
    content = {"model": model, "protocol": "search", "settings": plain(config), "ways": ways, "environment": environment(config.threads)}
    try:
        replace_file(out, json.dumps(json_safe(content), indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
