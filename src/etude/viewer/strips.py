"""Strips: one row an arm, a dot for every seed and the interval of their mean, on one scale. As positions in percent, which the page draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etude.evals.statistics import Interval
from etude.viewer.charts import nice_ticks


@dataclass(frozen=True)
class Row:
    """What one arm shows. values: (seed, value). text: the row in words, on its right."""

    label: str
    values: Sequence[tuple[int, float]]
    interval: Interval | None
    text: str


@dataclass(frozen=True)
class DrawnRow:
    """A row on the scale: `dots` are (percent from the left, tooltip); the interval's ends and its middle are percent, None where there is none."""

    label: str
    colour: int
    dots: list[tuple[float, str]]
    low: float | None
    high: float | None
    middle: float | None
    text: str


@dataclass(frozen=True)
class Strip:
    """A figure of such rows. ticks: (percent from the left, label). zero: where the line at 0 stands, None where there is none."""

    title: str
    note: str
    rows: list[DrawnRow]
    ticks: list[tuple[float, str]]
    zero: float | None


def draw_strip(title: str, note: str, rows: Sequence[Row | None], write: Callable[[float], str], *, around_zero: bool = False) -> Strip | None:
    """The figure; None when no row has a value. A row's place decides its colour; None leaves one out."""
    shown = [v for row in rows if row for _, v in row.values]
    shown += [end for row in rows if row and row.interval for end in (row.interval.low, row.interval.high) if math.isfinite(end)]
    if not shown:
        return None
    ticks = nice_ticks(min([*shown, *([0.0] if around_zero else [])]), max([*shown, *([0.0] if around_zero else [])]), 4)
    low, high = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    drawn = []
    for colour, row in enumerate(rows):
        if row is None:
            continue
        known = row.interval is not None and math.isfinite(row.interval.low)
        drawn.append(
            DrawnRow(
                row.label,
                colour,
                [(place(value), f"seed {seed}: {write(value)}") for seed, value in row.values],
                place(row.interval.low) if row.interval and known else None,
                place(row.interval.high) if row.interval and known else None,
                place(row.interval.estimate) if row.interval else None,
                row.text,
            )
        )
    return Strip(title, note, drawn, [(place(t), write(t)) for t in ticks], place(0.0) if around_zero else None)
