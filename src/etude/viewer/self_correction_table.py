"""Repeated self-correction as tables for a terminal."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etude.evals.self_correction import ArmReport, Curve, Report
from etude.viewer.numbers import number, percent

ROWS = {
    "accuracy": "accuracy",
    "chance_corrected": "less chance",
    "fix_rate": "wrong ones mended",
    "fix_by_chance": "by chance",
    "break_rate": "right ones spoilt",
    "changed": "answers changed",
    "unread": "not read",
}
"""Curves that are shown by round, with their names for a person."""
SHORT = {
    "inertia": "inertia",
    "escape": "escape",
    "drift": "drift",
    "change_rate": "changes",
    "wrong_to_other": "wrong to wrong",
    "oscillation": "oscillation",
}
LEGEND = (
    "inertia, escape: of items wrong at first, those that end with the same answer, and those right at some time; drift: of items right at first, those not right in the end; "
    "changes: of all steps; wrong to wrong: of steps from wrong answers, those to another wrong one; oscillation: items with two changes or more"
)
WHOLE = {
    "inertia": "wrong first answer is the last one too",
    "escape": "wrong at first, right at some time",
    "drift": "right at first, wrong in the end",
    "change_rate": "answers changed, of all steps",
    "wrong_to_other": "of steps from wrong answers, to other wrong ones",
    "oscillation": "items with two changes or more",
}
"""Shares of whole conversations."""


def tables(report: Report) -> RenderableType:
    """Of every arm its rounds, then the shares of whole conversations side by side, then what stop policies reach."""
    parts: list[RenderableType] = []
    for arm in report.arms:
        parts += [_rounds(arm), Text()]
    return Group(*parts, _conversations(report), Text(LEGEND, style="dim"), Text(), _stops(report))


def with_ends(curve: Curve, place: int = -1) -> str:
    """'34 % [28, 41]', without the brackets where there is no interval."""
    low, high = curve.low[place], curve.high[place]
    ends = f" [{100 * low:.0f}, {100 * high:.0f}]" if math.isfinite(low) and math.isfinite(high) else ""
    return percent(curve.value[place]) + ends


def p_text(p: float) -> str:
    """A p-value, small ones as a bound."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def points(curve: Curve) -> str:
    """A difference of shares in points, with its interval."""
    value, low, high = (100 * each[0] for each in (curve.value, curve.low, curve.high))
    return f"{value:+.0f} [{low:+.0f}, {high:+.0f}]" if math.isfinite(low) else "–"


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", min_width=min(14, len(column)))
    return table


def _rounds(arm: ArmReport) -> Table:
    count = len(arm.tokens)
    table = _table(arm.name, "round", *map(str, range(count)))
    for name, title in ROWS.items():
        curve = arm.curves.get(name)
        if curve is not None and not (name == "unread" and not any(curve.value)):
            table.add_row(title, *map(percent, curve.value))
        if name == "accuracy" and curve is not None:
            table.add_row("  95 % interval", *(f"{100 * low:.0f} to {100 * high:.0f}" for low, high in zip(curve.low, curve.high, strict=True)), style="dim")
    table.add_row("p against round 0", "", *map(p_text, arm.p_values[1:]))
    table.add_row("best so far (oracle)", *map(percent, arm.curves["oracle"].value), style="dim")
    for name, title in (("margin", "margin of choice 0, nats"), ("entropy", "entropy, nats"), ("divergence", "KL to round 0, nats")):
        if name in arm.curves:
            table.add_row(title, *map(number, arm.curves[name].value))
    table.add_row("tokens written", *map(number, arm.tokens), style="dim")
    table.add_row("tokens read", *map(number, arm.prompt_tokens), style="dim")
    return table


def _conversations(report: Report) -> Table:
    ways = list(report.differences)
    table = _table("Whole conversations", "share", *(arm.name for arm in report.arms), *(f"generation − choice, {way}" for way in ways))
    for name, title in SHORT.items():
        table.add_row(title, *(with_ends(arm.curves[name]) for arm in report.arms), *(points(report.differences[way][name]) for way in ways))
    return table


def _stops(report: Report) -> Table:
    table = _table("When to stop, on the same answers", "policy", "accuracy", "further rounds", "tokens an item")
    for arm in report.arms:
        table.add_row(Text(arm.name, style="bold"))
        for stop in arm.stops:
            name = f"  {stop.name}" + (" (knows the answers)" if stop.oracle else "")
            table.add_row(name, with_ends(stop.accuracy), f"{stop.rounds:.1f}", number(stop.tokens), style="dim" if stop.oracle else None)
    return table
