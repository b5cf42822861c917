"""A claim's picture: the curves of its arms over the budget; where nothing was trained, its tests, one panel each.

A panel shows what every seed gave in the treatment and in the control, joined where the seed is the same, and beside it the mean difference with its interval on
the ground that the test asks for. Measures differ, and so each panel has scales of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from etude.durable import json_safe, replace_file
from etude.viewer.charts import Chart, Line, nice_ticks
from etude.viewer.claim import compared, interval, number_or, outcome
from etude.viewer.numbers import is_share, number, percent, title_of
from etude.viewer.svg import COLOURS, GRID, GROUND, INK, SOFT, svg

GRID_POINTS = 40
WIDTH, MARGIN, HEAD = 720, 20, 50
VALUES, DIFFERENCE = (220, 226), (490, 200)
"""Left edge and width of the two scales; the arms' names stand to the left of the first."""
ROW, ARM_LETTERS = 32, 28


def write_picture(result: Mapping[str, Any], path: Path) -> None:
    """Draw a claim's result into an SVG file; nothing is written when it has nothing to show."""
    picture = picture_of(result)
    if picture is not None:
        replace_file(path, picture)


def picture_of(result: Mapping[str, Any]) -> str | None:
    """The picture as an SVG document, from what `docs/claims/SLUG.json` holds; None for a void claim that measured nothing."""
    return svg(curves_chart(result)) if result["curves"] is not None else tests_svg(result)


def curves_chart(result: Mapping[str, Any]) -> Chart:
    """The plotted metric over the budget, mean over seeds with 95 % band. Curves are interpolated onto common places, where their mean is taken."""
    from etude.evals.statistics import mean_interval, value_at

    curves = result["curves"]
    metric, end = curves["metric"], curves["budget"]
    lines = []
    for name, seeds in curves["arms"].items():
        runs = [run for run in seeds if run["x"]]
        if not runs:
            continue
        start = max(run["x"][0] for run in runs)
        xs = [start + (end - start) * i / GRID_POINTS for i in range(GRID_POINTS + 1)]
        found = [mean_interval([value_at(run["x"], run["y"], x) for run in runs]) for x in xs]
        lines.append(Line(name, xs, [i.estimate for i in found], [i.low for i in found], [i.high for i in found]))
    share = is_share(metric)
    note = f"mean of {len(result['seeds'])} seeds, band: 95 % interval"
    return Chart(f"{result['name']}: {title_of(metric)}", note, lines, percent if share else number, share=share, x_name=f"budget, {curves['unit']}")


def tests_svg(result: Mapping[str, Any]) -> str | None:
    """The tests of a result, one below the other; None when nothing was tested. Values that are no numbers, null in the file, are left out."""
    colours = {arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(result["arms"])}
    tests, panels, top = json_safe(result["tests"]), [], HEAD
    for test in tests:
        rows = _rows(test)
        panels += _panel(test, rows, colours, top)
        top += 92 + ROW * len(rows)
    if not panels:
        return None
    height = top + 32
    told = f"{result['name']}, {result['verdict']}: " + "; ".join(f"{test['name']}: {_told(test)}" for test in tests)
    name, note = escape(result["name"]), f"{len(result['seeds'])} seeds; verdict: {result['verdict']}"
    key = (
        "Left: a dot is a seed, a line joins the same seed of both arms, a bar is the mean.",
        "Right: their mean difference (of one arm: its mean) with its 95 % interval; shaded: what the test asks for.",
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="{SOFT}">',
            f"<title>{escape(told)}</title>",
            f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{GROUND}"/>',
            f'<text x="{MARGIN}" y="24" font-size="15" font-weight="600" fill="{INK}">{name}: tests <tspan font-weight="400" '
            f'font-size="12.5" fill="{SOFT}">{escape(note)}</tspan></text>',
            *panels,
            *(_text(MARGIN, top + 16 * i, line, size=10.5) for i, line in enumerate(key)),
            "</svg>",
            "",
        ]
    )


@dataclass(frozen=True)
class _Scale:
    """Numbers onto pixels: from the first tick at `left` to the last one, `width` further right."""

    ticks: Sequence[float]
    left: float
    width: float

    @classmethod
    def over(cls, shown: Sequence[float], place: tuple[float, float], about: int) -> _Scale:
        return cls(nice_ticks(min(shown, default=0.0), max(shown, default=1.0), about), *place)

    def x(self, value: float) -> float:
        return self.left + self.width * (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])

    def axis(self, top: float, bottom: float) -> list[str]:
        lines = "".join(f"M{self.x(tick):.1f} {top}V{bottom}" for tick in self.ticks)
        return [
            f'<path d="{lines}" stroke="{GRID}"/>',
            *(_text(self.x(tick), bottom + 15, f"{tick:g}" if abs(tick) < 10_000 else f"{tick / 1000:g}k", size=11, anchor="middle") for tick in self.ticks),
        ]


def _rows(test: Mapping[str, Any]) -> list[tuple[str, list[float | None]]]:
    """The arms of a test with a value, or None, for every seed."""
    arms = [(test["treatment"], test["treatment_values"]), (test["control"], test["control_values"])]
    return [(name, values) for name, values in arms if name is not None]


def _panel(test: Mapping[str, Any], rows: list[tuple[str, list[float | None]]], colours: Mapping[str, str], top: float) -> list[str]:
    first, bottom = top + 38, top + 38 + ROW * len(rows)
    scale = _Scale.over([value for _, values in rows for value in _numbers(values)], VALUES, 4)
    parts = [
        f'<path d="M{MARGIN} {top - 14}H{WIDTH - MARGIN}" stroke="{GRID}"/>',
        _text(MARGIN, top + 6, test["name"], size=13, fill=INK, bold=True),
        _text(WIDTH - MARGIN, top + 6, outcome(test), size=13, fill=INK, bold=True, anchor="end"),
        _text(MARGIN, top + 24, compared(test)),
        *scale.axis(first, bottom),
    ]
    middles = [first + ROW * (i + 0.5) for i in range(len(rows))]
    if len(rows) == 2:
        pairs = [(a, b) for a, b in zip(rows[0][1], rows[1][1], strict=True) if a is not None and b is not None]
        joined = "".join(f"M{scale.x(a):.1f} {middles[0]}L{scale.x(b):.1f} {middles[1]}" for a, b in pairs)
        parts.append(f'<path d="{joined}" stroke="{SOFT}" stroke-opacity="0.45"/>')
    for (name, values), y in zip(rows, middles, strict=True):
        mean, label = _mean(values), name if len(name) <= ARM_LETTERS else name[: ARM_LETTERS - 1] + "…"
        parts.append(_text(VALUES[0] - 12, y - 2, label, anchor="end", fill=colours[name], bold=True))
        parts.append(_text(VALUES[0] - 12, y + 12, f"mean {number(mean)}", anchor="end", size=11))
        dots = "".join(f'<circle cx="{scale.x(value):.1f}" cy="{y}" r="4"/>' for value in _numbers(values))
        parts.append(f'<g fill="{colours[name]}" fill-opacity="0.6">{dots}</g>')
        if math.isfinite(mean):
            parts.append(f'<path d="M{scale.x(mean):.1f} {y - 10}v20" stroke="{INK}" stroke-width="2.4"/>')
    return parts + _difference(test, first, bottom)


def _difference(test: Mapping[str, Any], top: float, bottom: float) -> list[str]:
    """The interval over the half of the scale that it has to lie in; an end that is infinite runs to the edge, without a cap."""
    sign = 1 if test["better"] == "higher" else -1
    asked = sign * test["margin"]
    estimate, low, high = (test["difference"][key] for key in ("estimate", "low", "high"))
    shown = [0.0, asked, *_numbers((estimate, low, high))]
    scale = _Scale.over([*shown, asked + sign * 0.2 * (max(shown) - min(shown))], DIFFERENCE, 3)
    left, right = scale.left, scale.left + scale.width
    start, end = (scale.x(asked), right) if sign > 0 else (left, scale.x(asked))
    y = (top + bottom) / 2
    parts = [
        f'<rect x="{start:.1f}" y="{top}" width="{end - start:.1f}" height="{bottom - top}" fill="{COLOURS[2]}" fill-opacity="0.12"/>',
        *scale.axis(top, bottom),
        f'<path d="M{scale.x(0.0):.1f} {top}V{bottom}" stroke="{SOFT}"/>',
        f'<path d="M{scale.x(asked):.1f} {top}V{bottom}" stroke="{COLOURS[2]}" stroke-width="1.6" stroke-dasharray="4 3"/>',
        _text((left + right) / 2, bottom + 31, f"{number_or(estimate, '{:+.3g}')} {interval(test)}", anchor="middle", fill=INK),
    ]
    if estimate is not None:
        ends = [scale.x(value) if value is not None else edge for value, edge in ((low, left), (high, right))]
        caps = "".join(f"M{end:.1f} {y - 5}v10" for end, value in zip(ends, (low, high), strict=True) if value is not None)
        parts.append(f'<path d="M{ends[0]:.1f} {y}H{ends[1]:.1f}{caps}" stroke="{INK}" stroke-width="2"/>')
        parts.append(f'<circle cx="{scale.x(estimate):.1f}" cy="{y}" r="4.5" fill="{INK}"/>')
    return parts


def _told(test: Mapping[str, Any]) -> str:
    """A test for somebody who cannot see it."""
    means = ", ".join(f"{name} {number(_mean(values))}" for name, values in _rows(test))
    return f"{compared(test)}; {means}; {number_or(test['difference']['estimate'], '{:+.3g}')} {interval(test)}, {outcome(test)}"


def _text(x: float, y: float, words: str, *, size: float = 12, fill: str = SOFT, bold: bool = False, anchor: str = "start") -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float:
    found = _numbers(values)
    return math.fsum(found) / len(found) if found else math.nan
