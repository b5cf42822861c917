"""When to stop asking: policies that see answers and not whether they are right, tried on logs in which nothing stopped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etude.evals.revision import Array, Rounds


def stop_rounds(rounds: Rounds, confidence: Array | None = None, threshold: float = 0.8) -> dict[str, NDArray[np.int64]]:
    """[Q] the round (from 0) whose answer each policy keeps. All items have all R rounds.

    `first answer`, `last round`: always the same one. `unchanged`: the first answer that is the same as the one before it, and can be read. `confident`, where there is a
    confidence [Q, R]: the first one with at least `threshold`; NaN is none. Whoever finds no such round keeps the last.
    """
    count, columns = rounds.right.shape
    same = [[k > 0 and row[k] is not None and row[k] == row[k - 1] for k in range(columns)] for row in rounds.answers]
    found = {
        "first answer": np.zeros(count, dtype=np.int64),
        "last round": np.full(count, columns - 1, dtype=np.int64),
        "unchanged": _first(np.array(same, dtype=np.bool_).reshape(count, columns)),
    }
    if confidence is not None:
        found["confident"] = _first(confidence >= threshold)
    return found


def _first(stops: NDArray[np.bool_]) -> NDArray[np.int64]:
    stops = stops.copy()
    stops[:, -1] = True
    return stops.argmax(axis=1)
