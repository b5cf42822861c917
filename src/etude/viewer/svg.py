"""A chart as a picture of its own: an SVG file that a Markdown page can show."""

from __future__ import annotations

from html import escape

from etude.viewer.charts import SIDE, Chart, DrawnChart, DrawnLine, draw

COLOURS = ("#1c5fad", "#c4561a", "#14806a", "#7a4bb0", "#6b7480")
"""The report's colours on light ground; a page cannot say which ground it has, so the picture brings its own."""
INK, SOFT, GRID, GROUND = "#17202a", "#566270", "#e9edf1", "#ffffff"
LEFT, RIGHT, BOTTOM = 58, 34, 46
LEGEND_ROW = 18


def svg(chart: Chart | DrawnChart, *, width: int = 720, height: int = 300) -> str | None:
    """The chart as an SVG document; None when there is nothing to draw. width, height: of the plot with its axes, in pixels; title and legend come on top."""
    drawn = chart if isinstance(chart, DrawnChart) else draw(chart)
    if drawn is None:
        return None
    top = 34 + LEGEND_ROW * len(drawn.lines) + 10
    across, down = width - LEFT - RIGHT, height - BOTTOM
    place = f'transform="translate({LEFT} {top}) scale({across / SIDE:.4f} {down / SIDE:.4f})"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + height}" width="{width}" height="{top + height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{SOFT}">',
        f"<title>{escape(drawn.description)}</title>",
        f'<rect width="{width}" height="{top + height}" rx="8" fill="{GROUND}"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="600" fill="{INK}">{escape(drawn.title)} <tspan font-weight="400" font-size="12.5" '
        f'fill="{SOFT}">{escape(drawn.note)}</tspan></text>',
    ]
    for row, line in enumerate(drawn.lines):
        y = 34 + LEGEND_ROW * row + 9
        parts.append(f'<path d="M{LEFT} {y}h18" stroke="{_colour(line)}" stroke-width="2.4"{_dashes(line)}/>')
        parts.append(f'<text x="{LEFT + 26}" y="{y + 4}">{escape(line.label)} <tspan font-weight="600" fill="{INK}">{escape(line.last)}</tspan></text>')
    grid = "".join(f"M0 {percent * SIDE / 100:.0f}H{SIDE:.0f}" for percent, _ in drawn.y_ticks)
    parts.append(f'<g {place} fill="none" stroke-linejoin="round"><path d="{grid}" stroke="{GRID}" vector-effect="non-scaling-stroke"/>')
    parts += [_line(line) for line in reversed(drawn.lines)]
    parts.append("</g>")
    for percent, label in drawn.y_ticks:
        parts.append(f'<text x="{LEFT - 8}" y="{top + down * percent / 100 + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for percent, label in drawn.x_ticks:
        parts.append(f'<text x="{LEFT + across * percent / 100:.1f}" y="{top + down + 18}" text-anchor="middle">{escape(label)}</text>')
    parts.append(f'<text x="{LEFT + across / 2:.0f}" y="{top + down + 38}" text-anchor="middle">{escape(drawn.x_name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _line(line: DrawnLine) -> str:
    colour = _colour(line)
    band = f'<path d="{line.band}" fill="{colour}" fill-opacity="0.14" stroke="none"/>' if line.band else ""
    return f'{band}<path d="{line.path}" stroke="{colour}" stroke-width="2.2"{_dashes(line)} vector-effect="non-scaling-stroke"/>'


def _colour(line: DrawnLine) -> str:
    return COLOURS[line.colour % len(COLOURS)]


def _dashes(line: DrawnLine) -> str:
    """Lines that come round to a colour for the second time are dashed."""
    return ' stroke-dasharray="6 4"' if line.colour >= len(COLOURS) else ""
