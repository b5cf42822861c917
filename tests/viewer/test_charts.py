"""The geometry of charts, on numbers that can be checked by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.viewer.charts import MOST_POINTS, Chart, Line, draw, nice_ticks, smoothed, spans, spark
from etude.viewer.numbers import number, percent

finite = st.floats(-1e9, 1e9, allow_subnormal=False)


@given(finite, finite, st.integers(2, 8))
def test_ticks_cover_the_range_evenly(a: float, b: float, about: int) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high, about)
    slack = 1e-6 * max(abs(low), abs(high), 1e-12)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    gaps = [y - x for x, y in pairwise(ticks)]
    assert gaps
    assert max(gaps) == pytest.approx(min(gaps), rel=1e-3)
    assert len(ticks) <= about + 3


def test_ticks_are_round() -> None:
    assert nice_ticks(0.0, 0.93, 4) == [0.0, 0.5, 1.0]
    assert nice_ticks(0.0, 0.93, 4, quarters=True) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert nice_ticks(16.7, 20.9, 4) == [16.0, 18.0, 20.0, 22.0]
    assert nice_ticks(0, 3, 5, whole=True) == [0.0, 1.0, 2.0, 3.0]


def test_moving_mean() -> None:
    assert smoothed([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, 11 / 3, 4.5]
    assert smoothed([5.0, 7.0], 1) == [5.0, 7.0]


def test_spans_keep_the_mean_and_the_range() -> None:
    assert spans([0, 1, 2, 3], [1.0, 3.0, 10.0, 20.0], 2) == ([1, 3], [2.0, 15.0], [1.0, 10.0], [3.0, 20.0])


def test_points_land_where_they_should() -> None:
    drawn = draw(Chart("t", "", [Line("a", [0, 5, 10], [0.0, 0.5, 1.0], [0.0, 0.25, 1.0], [0.0, 0.75, 1.0])], percent, share=True))
    assert drawn is not None
    (line,) = drawn.lines
    assert line.path == "M0 1000L500 500L1000 0"
    assert line.band == "M0 1000L500 250L1000 0L1000 0L500 750L0 1000Z"
    assert line.dots == "M0 1000h0M500 500h0M1000 0h0"
    assert drawn.y_ticks == [(100.0, "0 %"), (75.0, "25 %"), (50.0, "50 %"), (25.0, "75 %"), (0.0, "100 %")]
    assert drawn.x_ticks[0] == (0.0, "0")
    assert drawn.x_ticks[-1] == (100.0, "10")
    assert drawn.description == "t: a from 0 % to 100 %, lowest 0 %, highest 100 %"


def test_given_range_leaves_room() -> None:
    drawn = draw(Chart("t", "", [Line("a", [5, 10], [0.0, 1.0])], number, x_range=(0, 10)))
    assert drawn is not None
    assert drawn.lines[0].path.startswith("M500 ")


def test_nothing_to_draw() -> None:
    assert draw(Chart("t", "", [], number)) is None
    assert draw(Chart("t", "", [Line("a", [], [])], number)) is None


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5, 1e-12, 1e12])
def test_one_point_or_a_flat_line(value: float) -> None:
    for x in ([7], [1, 2, 3]):
        drawn = draw(Chart("t", "", [Line("a", x, [value] * len(x))], number))
        assert drawn is not None
        numbers = [float(part) for point in drawn.lines[0].path.strip("M").split("L") for part in point.split()]
        assert all(0 <= n <= 1000 for n in numbers)
        assert drawn.y_ticks


def test_bands_skip_what_is_unknown() -> None:
    line = Line("a", [0, 1, 2], [1.0, 2.0, 3.0], [0.5, math.nan, 2.5], [1.5, math.nan, 3.5])
    drawn = draw(Chart("t", "", [line], number))
    assert drawn is not None
    assert drawn.lines[0].band.count("L") == 3
    assert drawn.lines[0].values["low"] == [0.5, None, 2.5]


def test_size_does_not_grow_with_the_run() -> None:
    steps = list(range(20_000))
    drawn = draw(Chart("t", "", [Line("a", steps, [math.sin(s / 900) for s in steps], dense=True)], number))
    assert drawn is not None
    assert drawn.lines[0].path.count("L") == MOST_POINTS - 1
    assert len(drawn.lines[0].values["x"]) == MOST_POINTS


def test_sparkline_path() -> None:
    assert spark([0.0, 1.0]) == "M1.0 22.0L99.0 2.0"
    assert spark([1.0]) == ""
    assert spark([math.nan, 2.0]) == ""
    assert spark(list(range(1000))).count("L") == 59
