"""Draws one metric of a run over its steps into an SVG file, for the documentation.

python scripts/run_picture.py RUN eval/pass@1 docs/real-models.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

from etude.durable import replace_file
from etude.errors import InputError
from etude.viewer.charts import Chart, Line
from etude.viewer.numbers import is_share, number, percent, title_of
from etude.viewer.record import RunRecord, read_run
from etude.viewer.svg import svg


def chart_of(record: RunRecord, metric: str) -> Chart:
    """The metric's curve, with its 95 % interval where the run measured one. Raises InputError when it was never measured."""
    x, y = record.series(metric)
    if not y:
        raise InputError(f"{record.folder} has no value of {metric!r}; it has {', '.join(record.names)}")
    low, high = (record.series(f"{metric}_{end}")[1] for end in ("low", "high"))
    banded = len(low) == len(high) == len(y)
    line = Line(title_of(metric), x, y, low if banded else None, high if banded else None)
    share = is_share(metric)
    return Chart(
        f"{record.method} on {record.tasks}, {record.model}",
        "band: 95 % interval over tasks" if banded else "",
        [line],
        percent if share else number,
        share=share,
    )


def main(run: str, metric: str, target: str) -> None:
    drawn = svg(chart_of(read_run(Path(run)), metric))
    assert drawn is not None, "a chart with values can be drawn"
    replace_file(Path(target), drawn)


if __name__ == "__main__":
    main(*sys.argv[1:])
