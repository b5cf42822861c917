"""Draw one of a run's charts as a picture of its own, for a page of the documentation.

    python scripts/run_curve.py RUN TITLE OUT.svg

TITLE is how the chart is headed in the run's report, for example "Held-out accuracy".
"""

from __future__ import annotations

import sys
from pathlib import Path

from etude.viewer.curves import main_charts
from etude.viewer.record import read_run
from etude.viewer.svg import svg


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    charts = {chart.title: chart for chart in main_charts(read_run(Path(sys.argv[1])))}
    if sys.argv[2] not in charts:
        sys.exit(f"the report of {sys.argv[1]} has no chart {sys.argv[2]!r}; it has: {', '.join(charts)}")
    page = svg(charts[sys.argv[2]])
    if page is None:
        sys.exit(f"there is nothing to draw in {sys.argv[2]!r}")
    Path(sys.argv[3]).write_text(page)


if __name__ == "__main__":
    main()
