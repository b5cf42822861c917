"""Repeated self-correction as one HTML page that needs nothing else: curves over rounds, every item's course, stop policies and conversations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.evals.revision import STATES, states
from etude.evals.self_correction import ArmReport, Curve, Report, rounds_of
from etude.viewer.charts import Chart, DrawnChart, Line, draw
from etude.viewer.numbers import number, percent
from etude.viewer.page import render_page
from etude.viewer.report import Tile
from etude.viewer.samples import readable
from etude.viewer.self_correction_table import WHOLE, p_text, points, with_ends

MOST_COURSES = 300
MOST_CONVERSATIONS = 12


@dataclass(frozen=True)
class Courses:
    """Items as rows and rounds as columns. bands: (column, first row, rows, state) of neighbouring rows that look the same."""

    name: str
    rows: int
    columns: int
    bands: list[tuple[int, int, int, str]]
    counts: list[tuple[str, int]]


def render(report: Report, *, model: str, tasks: str, settings: Sequence[tuple[str, str]], remarks: Sequence[str] = ()) -> str:
    """The whole page as text. model, tasks: their names. settings: (option, value). remarks: what a reader should know before the numbers."""
    drawn = charts(report)
    return render_page(
        "self_correction.html",
        report=report,
        model=model,
        tasks=tasks,
        headline=headline(report, model),
        remarks=remarks,
        tiles=[_tile(arm) for arm in report.arms],
        charts=drawn,
        chart_data=[chart.data for chart in drawn],
        courses=[courses(arm) for arm in report.arms],
        whole=_whole(report),
        stops=[(arm.name, [(s, _parted(with_ends(s.accuracy)), f"{s.rounds:.1f}", number(s.tokens)) for s in arm.stops]) for arm in report.arms],
        transitions=[(arm.name, [(k + 1, m.tolist()) for k, m in enumerate(arm.matrices)]) for arm in report.arms],
        state_names=STATES,
        conversations=conversations(report),
        settings=settings,
    )


def _whole(report: Report) -> list[tuple[str, list[tuple[str, str]], list[tuple[str, str]]]]:
    """Rows of the shares of conversations: title, of each arm value and interval, and of each method the difference of its formats."""
    return [
        (title, [_parted(with_ends(arm.curves[name])) for arm in report.arms], [_parted(points(curves[name])) for curves in report.differences.values()])
        for name, title in WHOLE.items()
    ]


def headline(report: Report, model: str) -> str:
    """What became of the accuracy of each arm, in a sentence."""
    rounds = len(report.arms[0].tokens) - 1
    parts = [f"{arm.name} {percent(arm.value('accuracy', 0))} → {percent(arm.value('accuracy'))}" for arm in report.arms[:2]]
    return f"{model} after {rounds} further look{'s' if rounds > 1 else ''}: {'; '.join(parts)}"


def _tile(arm: ArmReport) -> Tile:
    first, last = arm.value("accuracy", 0), arm.value("accuracy")
    p = arm.p_values[-1]
    verdict = "" if p >= 0.05 else "up" if last > first else "down"
    return Tile(arm.name, f"{percent(first).removesuffix(' %')} → {percent(last)}", f"p = {p_text(p)}".replace("= <", "<"), verdict)


def _parted(text: str) -> tuple[str, str]:
    value, bracket, ends = text.partition(" [")
    return value, f"[{ends}" if bracket else ""


def charts(report: Report) -> list[DrawnChart]:
    """The curves: what is shared by all arms, then what only choices have."""
    shares = [
        ("accuracy", "Accuracy", "of each round; bands: 95 % intervals over items"),
        ("changed", "Answers changed", "from the round before"),
        ("fix_rate", "Wrong answers mended", "of those wrong the round before"),
        ("break_rate", "Right answers spoilt", "of those right the round before"),
        ("oracle", "Best answer so far", "an oracle’s, who knows when to stop: compare it with no accuracy"),
        ("unread", "Answers that could not be read", "of all"),
        ("chance_corrected", "Accuracy less chance", "a share; 0: guessing among the options"),
    ]
    found = [_chart(report, name, title, note, share=name != "chance_corrected") for name, title, note in shares if name != "unread" or _occurs(report, name)]
    traces = [
        ("margin", "Margin of the first choice", "nats over the best other option"),
        ("entropy", "Entropy of the options", "nats"),
        ("divergence", "Distance from the first round", "KL of the options’ probabilities, nats"),
    ]
    found += [_chart(report, name, title, note, share=False) for name, title, note in traces]
    tokens = [Line(f"{arm.name}, written", range(len(arm.tokens)), arm.tokens) for arm in report.arms]
    tokens += [Line(f"{arm.name}, read", range(len(arm.tokens)), arm.prompt_tokens) for arm in report.arms]
    if all(math.isfinite(v) for line in tokens for v in line.y):
        found.append(Chart("Tokens an item", "by round; what is read grows with the conversation", tokens, number, from_zero=True, x_name="round"))
    return [chart for chart in map(draw, found) if chart is not None]


def _occurs(report: Report, name: str) -> bool:
    return any(value > 0 for arm in report.arms for value in arm.curves[name].value)


def _chart(report: Report, name: str, title: str, note: str, *, share: bool) -> Chart:
    lines = [_line(arm.name, arm.curves[name]) if name in arm.curves else Line(arm.name, [], []) for arm in report.arms]
    last = len(report.arms[0].tokens) - 1
    labels = {float(k): str(k) for k in range(last + 1)}
    return Chart(title, note, lines, percent if share else number, share=share, x_name="round", x_labels=labels, x_range=(0, last))


def _line(label: str, curve: Curve) -> Line:
    """The rounds in which there is something to count."""
    known = [k for k, value in enumerate(curve.value) if math.isfinite(value)]
    y, low, high = ([column[k] for k in known] for column in (curve.value, curve.low, curve.high))
    return Line(label, known, y, low, high) if all(map(math.isfinite, low)) else Line(label, known, y)


def courses(arm: ArmReport) -> Courses:
    """How every item went in the first repeat, items that went alike together: right ones at the top, and of more than a page holds evenly spread ones."""
    kinds = states(rounds_of(arm.logs[0]))
    order = sorted(range(len(kinds)), key=lambda i: [{1: 0, 0: 1, 2: 2}[int(kind)] for kind in kinds[i]])
    if len(order) > MOST_COURSES:
        order = [order[round(i * (len(order) - 1) / (MOST_COURSES - 1))] for i in range(MOST_COURSES)]
    shown = kinds[order]
    bands = []
    for column in range(shown.shape[1]):
        start = 0
        for row in range(1, len(shown) + 1):
            if row == len(shown) or shown[row, column] != shown[start, column]:
                bands.append((column, start, row - start, STATES[shown[start, column]]))
                start = row
    first, last = kinds[:, 0], kinds[:, -1]
    counts = [
        ("right first and last", int(((first == 1) & (last == 1)).sum())),
        ("right last, and not first", int(((first != 1) & (last == 1)).sum())),
        ("right first, and not last", int(((first == 1) & (last != 1)).sum())),
        ("right in between alone", int(((first != 1) & (last != 1) & (kinds == 1).any(axis=1)).sum())),
        ("never right", int((kinds != 1).all(axis=1).sum())),
    ]
    return Courses(arm.name, len(shown), shown.shape[1], bands, counts)


def conversations(report: Report) -> list[dict[str, Any]]:
    """Some items spread over the set, with what every arm answered in every round of its first repeat."""
    step = max(1, len(report.items) // MOST_CONVERSATIONS)
    found = []
    for place in range(0, len(report.items), step)[:MOST_CONVERSATIONS]:
        item = report.items[place]
        rows = []
        for arm in report.arms:
            log = arm.logs[0][place]
            marks = ["right" if a.right >= 0.5 else "unjudged" if a.answer is None else "wrong" for a in log]
            rows.append((arm.name, [(readable(a.text, 400), mark) for a, mark in zip(log, marks, strict=True)]))
        options = [f"{letter}) {readable(option)}" for letter, option in zip(item.letters, item.options, strict=True)]
        found.append(
            {"question": readable(item.task.prompt), "options": options, "answer": readable(item.task.answer), "letter": item.letters[item.gold], "rows": rows}
        )
    return found
