"""`etude eval MODEL --protocol self-correction`: flags to rounds of asking again, and what came of them to the terminal, a JSON file and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.config import SelfCorrectionConfig
from etude.durable import json_safe, replace_file
from etude.errors import InputError
from etude.settings import check_config

if TYPE_CHECKING:
    from etude.evals.self_correction import ArmReport, Report

DESCRIPTION = (
    "Ask MODEL the same questions again and again, freely and by choosing among options, with no word on whether an answer was right; and count what is mended, spoilt "
    "and left as it was. --out FILE.json writes every answer of every round to a file, and the curves to FILE.html beside it."
)


def self_correction_command(model: str | None, given: list[str], out: Path | None) -> int:
    """Run the command; returns its exit code."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from etude.cli import parsed
    from etude.evaluation_file import require_writable

    if model is None and not {"-h", "--help"} & set(given):
        raise InputError("no model is named; expected one first, as in `etude eval tiny --protocol self-correction --prompts short`")
    prog = f"etude eval {model or 'MODEL'} --protocol self-correction"
    config = parsed(SelfCorrectionConfig, given, prog=prog, description=DESCRIPTION, default=SelfCorrectionConfig())
    check_config(config, "flag")
    if out is not None:
        if out.suffix == ".html":
            raise InputError(f"--out is {out}; expected a name for the numbers, such as {out.with_suffix('.json')}: the page gets the same one with .html")
        require_writable(out)
        require_writable(page_of(out))
    from etude.api import self_correction
    from etude.viewer.self_correction_table import tables

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f} of {task.total:.0f} rounds"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"asking {model}", total=config.repeats * (config.rounds + 1) * len(config.methods) * len(config.formats))
        rounds: dict[str, int] = {}

        def done(arm: str, complete: int) -> None:
            rounds[arm] = complete
            progress.update(bar, completed=sum(rounds.values()), description=arm)

        report = self_correction(str(model), config, done=done)
    console = Console()
    asked = f"{len(report.items)} items" + (f", {config.repeats} times" if config.repeats > 1 else "")
    console.print(f"{model} on {config.tasks}: {asked}, {config.rounds} further rounds\n", markup=False, highlight=False, soft_wrap=True)
    console.print(tables(report))
    for remark in remarks(report, config):
        console.print(f"note: {remark}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        for path in write_files(out, report, str(model), config):
            console.print(f"written: {path}", highlight=False, soft_wrap=True)
    return 0


def remarks(report: Report, config: SelfCorrectionConfig) -> list[str]:
    """What a reader should know before believing the numbers."""
    found = []
    for arm in report.arms:
        if (unread := max(arm.curves["unread"].value)) > 0.1:
            found.append(f"{arm.name}: up to {100 * unread:.0f} % of a round's answers could not be read; they count as not right, and as nothing else")
        if arm.dropped > 0:
            found.append(f"{arm.name}: {100 * arm.dropped:.0f} % of the later rounds left early ones out, because the model's context was full")
    if not config.history:
        found.append("each round asked afresh, without history: what changes here is chance")
    if config.temperature == 0:
        found.append("greedy answers repeat themselves where sampled ones would move; a temperature above 0 and --no-history tell correction from chance")
    if config.option_logits:
        found.append("options were chosen by what was written; their log-probabilities, of 'answer: X' right after the question, were read besides")
    return found


def page_of(out: Path) -> Path:
    """Where the page goes: beside the file with the numbers."""
    return out.with_suffix(".html")


def write_files(out: Path, report: Report, model: str, config: SelfCorrectionConfig) -> list[Path]:
    """Write the numbers with every answer as JSON, and the page; returns their paths. Raises InputError when the disk does not take them."""
    from etude.provenance import environment
    from etude.run import plain
    from etude.viewer.self_correction_page import render

    content = {"model": model, "protocol": "self-correction", "settings": plain(config), **as_plain(report), "environment": environment(config.threads)}
    settings = [(name, str(value)) for name, value in plain(config).items()]
    page = render(report, model=model.rstrip("/").rsplit("/", 1)[-1], tasks=config.tasks.rsplit("/", 1)[-1], settings=settings, remarks=remarks(report, config))
    try:
        replace_file(out, json.dumps(json_safe(content), indent=1, ensure_ascii=False) + "\n")
        replace_file(page_of(out), page.encode("utf-8", errors="replace").decode("utf-8"))
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
    return [out, page_of(out)]


def as_plain(report: Report) -> dict[str, Any]:
    """The report as plain values: items, and of each arm its curves, transitions, stop policies and all answers, [repeats][items][rounds + 1]."""
    items = [
        {"id": item.task.id, "question": item.task.prompt, "answer": item.task.answer, "options": list(item.options), "gold": item.gold}
        for item in report.items
    ]
    differences = {way: {name: asdict(curve) for name, curve in curves.items()} for way, curves in report.differences.items()}
    return {"items": items, "arms": [_plain_arm(arm) for arm in report.arms], "generation_less_choice": differences}


def _plain_arm(arm: ArmReport) -> dict[str, Any]:
    return {
        "format": arm.arm.form,
        "method": arm.arm.way,
        "curves": {name: asdict(curve) for name, curve in arm.curves.items()},
        "transitions": arm.matrices.tolist(),
        "p_against_first": arm.p_values,
        "tokens": arm.tokens,
        "prompt_tokens": arm.prompt_tokens,
        "history_cut": arm.dropped,
        "stops": [asdict(stop) for stop in arm.stops],
        "answers": [[_plain_rows(row) for row in log] for log in arm.logs],
    }


def _plain_rows(row: Sequence[Any]) -> list[dict[str, Any]]:
    """Rounds of one item, without what has no value."""
    return [{name: value for name, value in asdict(answered).items() if value not in ([], None) or name == "answer"} for answered in row]
