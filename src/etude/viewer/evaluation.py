"""One evaluation as a table for a terminal."""

from __future__ import annotations

import math

from rich.table import Table

from etude.types import Metrics
from etude.viewer.numbers import interval_text, title_of, value_text


def evaluation_table(metrics: Metrics) -> Table:
    """One row a metric, with its 95 % interval where there is one. The number of tasks is left out, and that of unscored attempts where there is none."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("held-out")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    for name, value in metrics.items():
        if not name.endswith(("_low", "_high")) and name != "eval/tasks" and (name != "eval/unscored" or value):
            interval = interval_text(name, metrics.get(f"{name}_low", math.nan), metrics.get(f"{name}_high", math.nan))
            table.add_row(title_of(name), value_text(name, value), interval)
    return table
