"""What things cost in seconds, by number: fitted to observations of runs and benchmarks.

A phase of sampling costs so much a decode step, so much a generated token, a read token and a turn of the environment; an update so much, and so much a token. The
coefficients are those, none of them negative, with which the observations come out best (least squares of relative errors). One run whose steps are all alike cannot
tell a step's fixed part from its part a token; runs of different sizes can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

UNITS = {
    "decode_step": "a decode step",
    "decode_token": "a generated token",
    "prefill_token": "a read token",
    "environment": "a turn of the environment",
    "update": "an update",
    "train_token": "a trained token",
}
SAMPLING = ("decode_step", "decode_token", "prefill_token", "environment")
LEARNING = ("update", "train_token")


@dataclass(frozen=True)
class Observation:
    """How often things happened, by the names of `UNITS`, and the seconds that all of it took."""

    counts: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Rates:
    """Seconds of one sampler replica and of one learner rank. sources: where each number is from, by name."""

    decode_step: float
    decode_token: float
    prefill_token: float
    environment: float
    update: float
    train_token: float
    sync: float = 0.0
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """Coefficients by name, and the mean relative error of the observations under them."""

    seconds: dict[str, float]
    error: float
    observations: int


def fitted(observations: Sequence[Observation], names: Sequence[str]) -> Fit:
    """Coefficients, 0 or more, of the counts in `names`. Raises ValueError without observations that took time."""
    import numpy as np
    from scipy.optimize import nnls

    used = [o for o in observations if o.seconds > 0]
    if not used:
        raise ValueError("there are no observations with seconds in them")
    counts = np.array([[o.counts.get(name, 0.0) for name in names] for o in used])
    seconds = np.array([o.seconds for o in used])
    # Each row over its own seconds: every observation weighs alike. Each column over its size: counts differ by orders of magnitude.
    rows = counts / seconds[:, None]
    sizes = np.where(rows.max(axis=0) > 0, rows.max(axis=0), 1.0)
    scaled, _ = nnls(rows / sizes, np.ones(len(used)))
    coefficients = scaled / sizes
    error = float(np.abs(rows @ coefficients - 1).mean())
    return Fit(dict(zip(names, map(float, coefficients), strict=True)), error, len(used))
