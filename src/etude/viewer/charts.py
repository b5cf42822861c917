"""Line charts as geometry: what the report's template draws as inline SVG.

Curves live in a square of 1000 x 1000 units that the page stretches to any width, while strokes and labels keep their size: the chart stays crisp on a
phone, on paper and at any zoom, follows the page's light or dark colours, and needs no script to be seen. Long series are drawn as means over equal spans
with the range behind them, so that a chart's size does not grow with the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

SIDE = 1000.0
MOST_POINTS = 300


@dataclass
class Line:
    """One curve: values at rising x, optionally with the ends of an interval at each.

    `dense` curves are measured at every step: they are drawn smoothed, their raw values faint behind. Others are drawn as measured, with a dot for each point.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dense: bool = False


@dataclass
class Chart:
    """What is to be drawn. `write` turns a value into text; `share` keeps the axis inside [0, 1]; `x_labels` names the only x positions there are.

    Charts that are given the same `x_range` can be read across.
    """

    title: str
    note: str
    lines: list[Line]
    write: Callable[[float], str]
    share: bool = False
    from_zero: bool = False
    x_name: str = "step"
    x_labels: dict[float, str] | None = None
    x_range: tuple[float, float] | None = None


@dataclass
class DrawnLine:
    """One curve in the unit square: path data, its legend entry, and the values that the pointer reads."""

    label: str
    colour: int
    path: str
    raw: str
    band: str
    dots: str
    last: str
    values: dict[str, Any]


@dataclass
class DrawnChart:
    """A chart ready for the template: `y_ticks` and `x_ticks` are (position in percent from the top or left, label)."""

    title: str
    note: str
    lines: list[DrawnLine]
    y_ticks: list[tuple[float, str]]
    x_ticks: list[tuple[float, str]]
    x_name: str
    description: str
    data: dict[str, Any] = field(default_factory=dict)


def draw(chart: Chart) -> DrawnChart | None:
    """The geometry of a chart; None when no line has a point."""
    lines = [(i, line) for i, line in enumerate(chart.lines) if len(line.y)]
    if not lines:
        return None
    x_low, x_high = _padded(*(chart.x_range or (min(line.x[0] for _, line in lines), max(line.x[-1] for _, line in lines))))
    shown = [v for _, line in lines for column in (line.y, line.low or (), line.high or ()) for v in column if math.isfinite(v)]
    low, high = min(shown), max(shown)
    if chart.from_zero or chart.share or 0 <= low < 0.4 * high:
        low = min(0.0, low)
    ticks = nice_ticks(low, high, 4, quarters=chart.share)
    y_low, y_high = min(low, ticks[0]), max(high, ticks[-1])
    if chart.share:
        ticks, y_low, y_high = [t for t in ticks if 0 <= t <= 1.0], max(0.0, y_low), min(1.0, y_high)

    def place_x(x: float) -> float:
        return SIDE * (x - x_low) / (x_high - x_low)

    def place_y(y: float) -> float:
        return SIDE * (1 - (y - y_low) / (y_high - y_low))

    drawn = []
    for i, line in lines:
        drawn.append(_draw_line(line, i, place_x, place_y, chart.write))
    x_ticks = chart.x_labels or {t: f"{t:,.0f}" for t in nice_ticks(x_low, x_high, 5, whole=True) if x_low <= t <= x_high}
    decimals = _decimals(ticks)
    return DrawnChart(
        title=chart.title,
        note=chart.note,
        lines=drawn,
        y_ticks=[(place_y(t) / SIDE * 100, f"{100 * t:.0f} %" if chart.share else _tick(t, decimals)) for t in ticks],
        x_ticks=[(place_x(t) / SIDE * 100, label) for t, label in x_ticks.items()],
        x_name=chart.x_name,
        description=_describe(chart),
        data={"x": [x_low, x_high], "share": chart.share, "name": chart.x_name, "labels": chart.x_labels, "lines": [d.values for d in drawn]},
    )


def _draw_line(line: Line, colour: int, place_x: Callable[[float], float], place_y: Callable[[float], float], write: Callable[[float], str]) -> DrawnLine:
    x, y = list(line.x), list(line.y)
    raw = band = dots = ""
    if len(y) > MOST_POINTS:
        x, y, low, high = spans(x, y, MOST_POINTS)
        band = _area(x, low, high, place_x, place_y)
        path = _path(x, smoothed(y, _window(len(y))) if line.dense else y, place_x, place_y)
    elif line.dense and len(y) >= 20:
        raw = _path(x, y, place_x, place_y)
        path = _path(x, smoothed(y, _window(len(y))), place_x, place_y)
    else:
        path = _path(x, y, place_x, place_y)
        if len(y) <= 60 and not (line.dense and len(y) > 1):
            dots = "".join(f"M{place_x(a):.0f} {place_y(b):.0f}h0" for a, b in zip(x, y, strict=True))
    values: dict[str, Any] = {"x": [round(v, 3) for v in x], "y": [_short(v) for v in y]}
    if line.low is not None and line.high is not None and len(line.low) == len(x):
        band = _area(x, line.low, line.high, place_x, place_y)
        values |= {"low": [_short(v) for v in line.low], "high": [_short(v) for v in line.high]}
    return DrawnLine(line.label, colour, path, raw, band, dots, write(line.y[-1]), values)


def spark(values: Sequence[float], points: int = 60) -> str:
    """Path data of a series in a box of 100 x 24 units, for a table cell; empty for fewer than two values."""
    y = [v for v in values if math.isfinite(v)]
    if len(y) < 2:
        return ""
    x = list(range(len(y)))
    if len(y) > points:
        x, y, _, _ = spans(x, y, points)
    low, high = _padded(min(y), max(y))
    return "M" + "L".join(f"{1 + 98 * (a - x[0]) / (x[-1] - x[0]):.1f} {22 - 20 * (b - low) / (high - low):.1f}" for a, b in zip(x, y, strict=True))


def nice_ticks(low: float, high: float, about: int, *, whole: bool = False, quarters: bool = False) -> list[float]:
    """Round numbers, evenly spaced, that cover [low, high]: about `about` of them. The first is <= low, the last >= high.

    `whole` keeps them whole numbers; `quarters` also allows steps of 25 and 2.5, which read well as percentages.
    """
    low, high = _padded(low, high)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in ((1, 2, 2.5, 5, 10) if quarters else (1, 2, 5, 10)) if power * m >= 0.999 * rough)
    if whole:
        step = max(1.0, float(round(step)))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Centred moving mean; near an end, the mean of what the window still covers."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    found = []
    for i in range(len(values)):
        first, end = max(0, i - window // 2), min(len(values), i + window // 2 + 1)
        found.append((sums[end] - sums[first]) / (end - first))
    return found


def spans(x: Sequence[float], y: Sequence[float], count: int) -> tuple[list[float], list[float], list[float], list[float]]:
    """Cut a series into `count` spans of equal length: the middle x, mean, smallest and largest y of each."""
    edges = [len(x) * i // count for i in range(count + 1)]
    cut = [(x[a:b], y[a:b]) for a, b in pairwise(edges) if b > a]
    return [xs[len(xs) // 2] for xs, _ in cut], [sum(ys) / len(ys) for _, ys in cut], [min(ys) for _, ys in cut], [max(ys) for _, ys in cut]


def _window(points: int) -> int:
    return 2 * (points // 40) + 1


def _path(x: Sequence[float], y: Sequence[float], place_x: Callable[[float], float], place_y: Callable[[float], float]) -> str:
    return "M" + "L".join(f"{place_x(a):.0f} {place_y(b):.0f}" for a, b in zip(x, y, strict=True))


def _area(x: Sequence[float], low: Sequence[float], high: Sequence[float], place_x: Callable[[float], float], place_y: Callable[[float], float]) -> str:
    """A closed band; points where an end is not finite are left out."""
    sides = [(a, b, c) for a, b, c in zip(x, low, high, strict=True) if math.isfinite(b) and math.isfinite(c)]
    if len(sides) < 2:
        return ""
    there = [f"{place_x(a):.0f} {place_y(c):.0f}" for a, _, c in sides]
    back = [f"{place_x(a):.0f} {place_y(b):.0f}" for a, b, _ in reversed(sides)]
    return "M" + "L".join(there + back) + "Z"


def _padded(low: float, high: float) -> tuple[float, float]:
    """The range, opened up where it has no width a float can divide by."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = 0.1 * abs(low) or 0.5
    return low - room, high + room


def _decimals(ticks: Sequence[float]) -> int:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _tick(value: float, decimals: int) -> str:
    """A tick label short enough for a narrow margin."""
    if decimals > 4 or abs(value) >= 1e6:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if value else "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.{decimals}f}"


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _describe(chart: Chart) -> str:
    """The chart for somebody who cannot see it."""
    parts = []
    for line in chart.lines:
        if len(line.y) > 1:
            first, last, least, most = (chart.write(v) for v in (line.y[0], line.y[-1], min(line.y), max(line.y)))
            parts.append(f"{line.label} from {first} to {last}, lowest {least}, highest {most}")
        elif len(line.y):
            parts.append(f"{line.label} {chart.write(line.y[0])}")
    return f"{chart.title}: " + "; ".join(parts)
