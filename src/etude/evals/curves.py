"""Learning curves: what a run reached, how soon, and how high it was on the way.

A curve is a row of budgets `x` (any unit, ascending, none below 0) and the metric `y` measured at each. Between two measurements it is a straight line; before
the first and after the last it is flat at that measurement. Nothing is smoothed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from etude.errors import InputError
from etude.evals.checked import Floats, finite_number, matched_values, one_of


def _curve(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    budgets, heights = matched_values("x", x, "y", y)
    if budgets[0] < 0 or np.any(np.diff(budgets) <= 0):
        raise InputError("x must ascend from 0 or above, each budget once; sort the measurements and keep one at each budget")
    return budgets, heights


def area_under_curve(x: ArrayLike, y: ArrayLike, *, until: float) -> float:
    """Mean height of the curve over budgets from 0 to `until`, in units of y: the trapezoid area divided by `until`.

    The first value is held back to 0 and the last one on to `until`; what lies beyond `until` does not count. A run that stopped early therefore counts as if
    it had stayed where it was: compare curves up to a budget that all of them reached, or say that they did not.
    Raises InputError unless x ascends from 0 or above and `until` is above 0.
    """
    budgets, heights = _curve(x, y)
    if finite_number("until", until, least=0.0) == 0:
        raise InputError("until must be above 0: there is no mean height over no budget")
    inside = budgets[(budgets > 0) & (budgets < until)]
    corners = np.concatenate([[0.0], inside, [until]])
    return float(np.trapezoid(np.interp(corners, budgets, heights), corners) / until)


def value_at(x: ArrayLike, y: ArrayLike, at: float) -> float:
    """Height of the curve at budget `at`, by linear interpolation; outside the measured budgets the nearest measurement, as for the area."""
    budgets, heights = _curve(x, y)
    return float(np.interp(finite_number("at", at, least=0.0), budgets, heights))


def budget_to_reach(x: ArrayLike, y: ArrayLike, level: float, *, better: Literal["higher", "lower"] = "higher") -> float | None:
    """The first budget at which the curve is at `level` or better, by linear interpolation; None when it never is.

    A curve that starts there gives its first budget. Noisy measurements cross a level early by luck, and the more so the more often they are taken: give the
    arms of a comparison the same evaluation schedule.
    """
    one_of("better", better, ("higher", "lower"))
    budgets, heights = _curve(x, y)
    above = heights - finite_number("level", level)
    if better == "lower":
        above = -above
    reached = np.flatnonzero(above >= 0)
    if reached.size == 0:
        return None
    i = int(reached[0])
    if i == 0:
        return float(budgets[0])
    share = -above[i - 1] / (above[i] - above[i - 1])
    return float(budgets[i - 1] + share * (budgets[i] - budgets[i - 1]))
