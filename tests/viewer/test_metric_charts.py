from __future__ import annotations

from pathlib import Path

from etude.viewer.curves import _by_scale
from etude.viewer.record import RunRecord


def test_difficulty_by_scale_has_the_first_and_the_last_evaluation():
    def row(start: float) -> dict[str, float]:
        return {"eval/scale_1": start, "eval/scale_8": start + 1, "eval/own_scale_1": start, "eval/own_scale_8": start + 2}

    [chart] = _by_scale(RunRecord(Path(), steps={0: row(3.0), 5: row(2.0), 9: row(1.0)}))
    assert {line.label: (list(line.x), list(line.y)) for line in chart.lines} == {
        "from real ones, step 9": ([1.0, 8.0], [1.0, 2.0]),
        "from its own, step 9": ([1.0, 8.0], [1.0, 3.0]),
        "from real ones, step 0": ([1.0, 8.0], [3.0, 4.0]),
        "from its own, step 0": ([1.0, 8.0], [3.0, 5.0]),
    }
