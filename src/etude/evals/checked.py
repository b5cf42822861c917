"""What the statistics take in, checked before anything is computed from it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etude.errors import InputError

Floats = NDArray[np.float64]


def finite_values(name: str, values: ArrayLike) -> Floats:
    """`values` as one row of at least one finite number; InputError otherwise, which names them and the first offender."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a row of numbers; got {values!r}") from error
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name} must be a row of at least one number; got an array of shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"{name} must be finite, and number {bad[0] + 1} of {array.size} is {array[bad[0]]}; leave out what could not be measured, in both arms"
        )
    return array


def matched_values(first_name: str, first: ArrayLike, second_name: str, second: ArrayLike) -> tuple[Floats, Floats]:
    """Two rows of finite numbers that belong together one by one; InputError when their lengths differ."""
    one, other = finite_values(first_name, first), finite_values(second_name, second)
    if one.size != other.size:
        raise InputError(f"{first_name} has {one.size} values and {second_name} has {other.size}; expected as many of each, in the same order")
    return one, other


def finite_number(name: str, value: float, *, least: float = -math.inf) -> float:
    """`value` as a finite number of at least `least`; InputError otherwise."""
    if not (math.isfinite(value) and value >= least):
        raise InputError(f"{name} must be a finite number{'' if math.isinf(least) else f' of at least {least:g}'}; got {value}")
    return float(value)


def whole_number(name: str, value: int, *, least: int) -> int:
    """`value` as an int of at least `least`; InputError otherwise. A float that is whole will do."""
    if not (math.isfinite(value) and value == int(value) and value >= least):
        raise InputError(f"{name} must be a whole number of at least {least}; got {value}")
    return int(value)


def probability_between_0_and_1(name: str, value: float) -> float:
    """`value` in the open interval (0, 1); InputError otherwise."""
    if not 0 < value < 1:
        raise InputError(f"{name} must lie between 0 and 1, as 0.95 does; got {value}")
    return float(value)


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """InputError unless `value` is one of `known`."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
