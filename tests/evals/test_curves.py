from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import InputError
from etude.evals.curves import area_under_curve, budget_to_reach, value_at

CURVES = st.lists(st.integers(0, 200), min_size=1, max_size=8, unique=True).flatmap(
    lambda x: st.tuples(st.just(sorted(x)), st.lists(st.integers(-50, 50), min_size=len(x), max_size=len(x)))
)


def test_area_by_hand():
    # 0.2 flat from 0 to 10, a line up to 0.6 at 30, flat to 40: 2 + 8 + 6 over 40.
    assert area_under_curve([10, 30], [0.2, 0.6], until=40) == pytest.approx(16 / 40)
    # Cut at 20, where the line is at 0.4: 2 + 3 over 20.
    assert area_under_curve(np.array([10, 30]), np.array([0.2, 0.6]), until=20) == pytest.approx(5 / 20)
    # Cut before the first measurement, which is held back.
    assert area_under_curve([10, 30], [0.2, 0.6], until=5) == pytest.approx(0.2)
    assert area_under_curve([7], [0.3], until=100) == pytest.approx(0.3)


def test_value_by_hand():
    assert [value_at([10, 30], [0.2, 0.6], at) for at in (0, 10, 15, 30, 99)] == pytest.approx([0.2, 0.2, 0.3, 0.6, 0.6])


def test_budget_by_hand():
    x, y = [0, 10, 20, 30], [0.1, 0.5, 0.3, 0.9]
    assert budget_to_reach(x, y, 0.4) == pytest.approx(7.5)  # the first crossing, though the curve falls again
    assert budget_to_reach(x, y, 0.5) == 10
    assert budget_to_reach(x, y, 0.6) == pytest.approx(25)
    assert budget_to_reach(x, y, 0.05) == 0
    assert budget_to_reach(x, y, 0.91) is None
    assert budget_to_reach(x, [-v for v in y], -0.4, better="lower") == pytest.approx(7.5)


@settings(deadline=None)
@given(CURVES, st.integers(1, 300), st.integers(-9, 9))
def test_area_is_the_mean_of_values_and_keeps_to_shift_and_scale(curve, until, shift):
    x, y = curve
    area = area_under_curve(x, y, until=until)
    # All corners lie on whole budgets, so that the midpoint rule on halves of them is exact.
    assert area == pytest.approx(np.mean([value_at(x, y, (i + 0.5) / 2) for i in range(2 * until)]), abs=1e-9)
    assert area_under_curve(x, [2 * v + shift for v in y], until=until) == pytest.approx(2 * area + shift, abs=1e-9)
    assert area_under_curve([3 * b for b in x], y, until=3 * until) == pytest.approx(area, abs=1e-9)
    assert min(y) - 1e-9 <= area <= max(y) + 1e-9


@settings(deadline=None)
@given(CURVES, st.integers(-60, 60))
def test_the_budget_is_the_first_at_that_height(curve, level):
    x, y = curve
    budget = budget_to_reach(x, y, level)
    if budget is None:
        assert max(y) < level
    else:
        assert value_at(x, y, budget) == pytest.approx(level, abs=1e-9) or budget == x[0]
        assert all(value_at(x, y, b) < level + 1e-9 for b in np.linspace(0, budget, 50)[:-1]) or budget == x[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: area_under_curve([1, 2], [1], until=2), "x has 2 values and y has 1"),
        (lambda: area_under_curve([], [], until=2), "x must be a row of at least one number"),
        (lambda: area_under_curve([1, 1], [1, 2], until=2), "x must ascend"),
        (lambda: area_under_curve([-1, 1], [1, 2], until=2), "from 0 or above"),
        (lambda: area_under_curve([1, 2], [1, math.nan], until=2), "y must be finite"),
        (lambda: area_under_curve([1, 2], [1, 2], until=0), "until must be above 0"),
        (lambda: area_under_curve([1, 2], [1, 2], until=math.inf), "until must be a finite number"),
        (lambda: value_at([1, 2], [1, 2], -1), "at must be a finite number of at least 0"),
        (lambda: budget_to_reach([1, 2], [1, 2], math.nan), "level must be a finite number"),
        (lambda: budget_to_reach([1, 2], [1, 2], 1, better="up"), "better must be one of 'higher', 'lower'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
