"""The report of a run: one HTML file that needs nothing else, no network and no server."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.durable import replace_file
from etude.run import DRAWINGS
from etude.viewer.changes import change_of, changes, difference_text, measured
from etude.viewer.charts import spark
from etude.viewer.curves import learner_charts, main_charts, probe_charts
from etude.viewer.drawings import picture_trees, sheets
from etude.viewer.numbers import count, duration, interval_text, ledger_rows, number, title_of, value_text
from etude.viewer.page import render_page
from etude.viewer.probe import answer_rows, probe_facts
from etude.viewer.record import RunRecord, read_run
from etude.viewer.samples import attempts, pairs, readable
from etude.viewer.search_trees import BAR, MOST_DETAILS, drawn_searches
from etude.viewer.trees import chosen_trees
from etude.viewer.wording import headline, remarks

MOST_PLAIN_CSV_BYTES = 80_000
MOST_PACKED_CSV_BYTES = 180_000
MOST_PAIRS = 40


@dataclass(frozen=True)
class Tile:
    """One number at the top of the page."""

    name: str
    value: str
    detail: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class MetricRow:
    """One metric over the whole run, as texts, with a sparkline path."""

    name: str
    first: str
    last: str
    least: str
    most: str
    points: int
    spark: str


@dataclass(frozen=True)
class Download:
    """A file inside the page, as a data URI."""

    name: str
    uri: str
    note: str


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder from whatever the run has recorded so far, and return its path.

    Works on unfinished and damaged runs, and may be called again at any time: the old report is replaced in one move.
    Raises InputError when the folder does not exist.
    """
    record = read_run(run_folder)
    path = record.folder / "report.html"
    replace_file(path, render(record).encode("utf-8", errors="replace").decode("utf-8"))
    return path


def render(record: RunRecord) -> str:
    """The whole page as text."""
    charts, folded, probed = main_charts(record), learner_charts(record), probe_charts(record)
    found = pairs(record.samples)
    tried = attempts(record.trajectories)
    captions, drawn = sheets(record.folder / DRAWINGS)
    return render_page(
        "report.html",
        record=record,
        headline=headline(record),
        remarks=remarks(record),
        tiles=tiles(record),
        charts=charts,
        folded=folded,
        probe_charts=probed,
        probe=probe_facts(record),
        answer_rows=answer_rows(record),
        chart_data=[c.data for c in [*charts, *folded, *probed]],
        evaluations=evaluation_table(record),
        time_shares=time_shares(record),
        ledger=ledger_rows(record.ledger),
        pairs=found[:MOST_PAIRS],
        pair_counts=Counter(p.change for p in found[:MOST_PAIRS]),
        before_step=found[0].before.step if found else 0,
        after_step=found[0].after.step if found else 0,
        searches=drawn_searches(record.search),
        bar_width=BAR,
        most_details=MOST_DETAILS,
        trees=chosen_trees(record.trees),
        captions=captions,
        sheets=drawn,
        picture_trees=picture_trees(record.folder / DRAWINGS),
        attempts=tried,
        attempt_steps=sorted({a.step for a in tried}),
        attempt_counts=Counter(a.mark for a in tried),
        metrics=metric_rows(record),
        download=metrics_download(record),
        config_text=readable(record.config_text, most=20_000),
        environment=_flat(record.environment),
    )


def tiles(record: RunRecord) -> list[Tile]:
    """The numbers at the top: what changed on the held-out split, and what it cost."""
    k, votes = record.largest_k(), record.largest_k("maj")
    names = [record.primary, f"eval/pass@{k}" if k else None, f"eval/maj@{votes}" if votes else None]
    found = []
    for name in dict.fromkeys(n for n in names if n):
        change = change_of(record, name)
        if change is not None:
            before, after = value_text(name, change.before[0]).removesuffix(" %"), value_text(name, change.after[0])
            found.append(Tile(f"held-out {title_of(name)}", f"{before} → {after}", difference_text(change), change.verdict))
        elif (series := record.series(name))[0]:
            found.append(Tile(f"held-out {title_of(name)}", value_text(name, series[1][-1]), f"at step {series[0][-1]}"))
    if record.primary is None and len(reward := record.series("reward/mean")[1]) > 1:
        found.append(Tile("training reward", f"{number(reward[0])} → {number(reward[-1])}", "not held out"))
    if (exported := record.exported) is not None and exported["step"] != exported["last_step"]:
        best, last = (value_text(record.score_key, math.nan if score is None else score) for score in (exported["score"], exported["last_score"]))
        detail = f"best of {exported['evaluations']} evaluations: {best}; last, step {exported['last_step']}: {last}"
        found.append(Tile("weights in model/", f"step {exported['step']}", detail))
    if record.seconds:
        steps = record.last_step
        found.append(Tile("time", duration(record.seconds), f"{duration(record.seconds / steps)} a step" if steps else ""))
    generated = record.ledger.get("generated_tokens")
    if isinstance(generated, (int, float)) and generated:
        rollouts = record.ledger.get("rollouts")
        found.append(Tile("generated tokens", count(generated), f"in {count(rollouts)} rollouts" if isinstance(rollouts, (int, float)) and rollouts else ""))
    return found


def evaluation_table(record: RunRecord) -> tuple[list[str], list[tuple[int, list[tuple[str, str]]]]]:
    """Column titles and, per evaluated step, (value, interval) texts."""
    names = [
        n for n in dict.fromkeys([*(c.name for c in changes(record)), *(n for n in record.names if n.startswith("eval/"))]) if not n.endswith(("_low", "_high"))
    ]
    rows = []
    for step in record.evaluations:
        cells = [measured(record, name, step) for name in names]
        rows.append((step, [(value_text(n, v), interval_text(n, low, high)) for n, (v, low, high) in zip(names, cells, strict=True)]))
    return [title_of(n) for n in names], rows


def time_shares(record: RunRecord) -> list[tuple[str, float, str]]:
    """Where the time went: (part, share of the whole, text), largest first; empty when it was not measured."""
    parts = {name.removeprefix("time/"): sum(record.series(name)[1]) for name in record.names if name.startswith("time/") and name != "time/step"}
    whole = sum(record.series("time/step")[1])
    rest = whole - sum(parts.values())
    if rest > 0.01 * whole:
        parts["other"] = rest
    spent = record.ledger.get("evaluation_seconds")
    if parts and "evaluation" not in parts and isinstance(spent, (int, float)):
        parts["evaluation"] = float(spent)
    total = sum(parts.values())
    if not total > 0:
        return []
    return [(name, seconds / total, duration(seconds)) for name, seconds in sorted(parts.items(), key=lambda p: -p[1]) if seconds > 0]


def metric_rows(record: RunRecord) -> list[MetricRow]:
    """Every numeric metric of the run."""
    rows = []
    names = set(record.names)
    for name in record.names:
        if name.removesuffix("_low").removesuffix("_high") in names - {name}:
            continue  # the ends of an interval: in the table of evaluations and the download
        _, values = record.series(name)
        if not values:
            rows.append(MetricRow(name, "–", "–", "–", "–", 0, ""))
            continue
        first, last, least, most = (value_text(name, v) for v in (values[0], values[-1], min(values), max(values)))
        rows.append(MetricRow(name, first, last, least, most, len(values), spark(values)))
    return rows


def metrics_download(record: RunRecord) -> Download | None:
    """All metrics as a CSV inside the page: plain while small, compressed when large, thinned to evaluated and every n-th step when huge."""
    if not record.steps:
        return None
    every = 1
    while True:
        text = _csv(record, every)
        plain = text.encode()
        if len(plain) <= MOST_PLAIN_CSV_BYTES:
            data, name, kind = plain, "metrics.csv", "text/csv"
        else:
            data, name, kind = gzip.compress(plain, mtime=0), "metrics.csv.gz", "application/gzip"
        if len(data) <= MOST_PACKED_CSV_BYTES or every >= len(record.steps):
            break
        every *= 2
    note = "" if every == 1 else f"every {every}th step and all evaluations; metrics.jsonl in the run folder has the rest"
    return Download(name, f"data:{kind};base64,{base64.b64encode(data).decode()}", note)


def _csv(record: RunRecord, every: int) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["step", *record.names])
    evaluated = set(record.evaluations)
    for i, (step, row) in enumerate(record.steps.items()):
        if i % every == 0 or step in evaluated:
            writer.writerow([step, *(f"{row[n]:.6g}" if math.isfinite(row.get(n, math.nan)) else "" for n in record.names)])
    return out.getvalue()


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested JSON as (dotted name, text) rows."""
    rows: list[tuple[str, str]] = []
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            rows += _flat(entry, f"{prefix}{key}.")
        elif isinstance(entry, list) and all(isinstance(e, str) for e in entry):
            rows.append((f"{prefix}{key}", readable(", ".join(entry)) or "none"))
        else:
            rows.append((f"{prefix}{key}", {None: "–", True: "yes", False: "no"}[entry] if entry is None or isinstance(entry, bool) else readable(entry)))
    return rows
