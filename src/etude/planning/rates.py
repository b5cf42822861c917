"""What things cost in seconds, by number: fitted to observations of runs and benchmarks.

A phase of sampling costs so much a decode step, so much a generated token, a read token and a turn of the environment; an update so much, and so much a token. The
coefficients are those, none of them negative, with which the observations come out best (least squares, errors relative to the mean of their run). Steps of one run
are much alike and cannot tell a fixed part from a part a token: there an assumption decides, which weighs little as soon as runs of different sizes say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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
    """How often things happened, by the names of `UNITS`, and the seconds that all of it took. usual: mean seconds of its kind in its run, which errors are relative to."""

    counts: dict[str, float]
    seconds: float
    usual: float = 0.0


def of_one_run(observations: Sequence[Observation]) -> list[Observation]:
    """The observations of one kind from one run, with their mean seconds as what is usual."""
    usual = sum(o.seconds for o in observations) / max(1, len(observations))
    return [replace(o, usual=usual) for o in observations]


@dataclass(frozen=True)
class Rates:
    """Seconds of one sampler replica and of one learner rank. reading: of a forward pass that reads what enters, besides its tokens. active: share of groups that the
    learner looks at, because their attempts differ in reward. sources: where each number is from, by name. alike: of measured ones the split is partly assumed."""

    decode_step: float
    decode_token: float
    prefill_token: float
    environment: float
    update: float
    train_token: float
    sync: float = 0.0
    reading: float = 0.0
    active: float = 1.0
    sources: dict[str, str] = field(default_factory=dict)
    alike: bool = False


@dataclass(frozen=True)
class Fit:
    """Coefficients by name, and the mean relative error of the observations under them. alike: counts differ so little that the assumption decides."""

    seconds: dict[str, float]
    error: float
    observations: int
    alike: bool


ASSUMED = 0.01
"""Weight of the assumption, against that of all observations."""
ALIKE = 0.25
"""Standard deviation over mean of the counts, each over what is usual, up to which observations are called alike."""


APART = 0.3
"""Difference in the share of read tokens among all, from which on observations tell what a read token costs."""


def fitted(observations: Sequence[Observation], names: Sequence[str]) -> Fit:
    """Seconds, 0 or more, of the counts in `names`: of sampling or of updates. Raises ValueError without observations that took time.

    With x the share of the time that each count costs, r the counts over their mean, t the seconds (both over what is usual) and p the shares that are assumed, x
    minimises the mean of (r x - t)^2, and 0.01 (x - p)^2 besides. Assumed is: of sampling, half the time goes by decode steps and half by tokens; of an update, all by
    tokens. A read token is taken to cost what a generated one does, unless the observations differ enough in their share of read tokens.
    """
    import numpy as np
    from scipy.optimize import nnls

    used = [o for o in observations if o.seconds > 0]
    if not used:
        raise ValueError("there are no observations with seconds in them")
    if "prefill_token" in names and not _tell_apart(used):
        together = [replace(o, counts={**o.counts, "decode_token": o.counts.get("decode_token", 0.0) + o.counts.get("prefill_token", 0.0)}) for o in used]
        fit = fitted(together, [name for name in names if name != "prefill_token"])
        return replace(fit, seconds={**fit.seconds, "prefill_token": fit.seconds["decode_token"]})
    usual = np.array([o.usual or o.seconds for o in used])
    seconds = np.array([o.seconds for o in used]) / usual
    rates = np.array([[o.counts.get(name, 0.0) for name in names] for o in used]) / usual[:, None]
    means = np.where(rates.mean(axis=0) > 0, rates.mean(axis=0), 1.0)
    rows, assumed = rates / means, _assumed(dict(zip(names, means, strict=True)))
    weight = np.sqrt(ASSUMED * len(used))
    shares, _ = nnls(np.vstack([rows, weight * np.eye(len(names))]), np.concatenate([seconds, weight * np.array([assumed[name] for name in names])]))
    error = float(np.abs(rows @ shares - seconds).mean())
    return Fit(dict(zip(names, map(float, shares / means), strict=True)), error, len(used), alike=bool(rows.std(axis=0).max() < ALIKE))


def _tell_apart(observations: Sequence[Observation]) -> bool:
    shares = [
        o.counts["prefill_token"] / (o.counts["prefill_token"] + o.counts.get("decode_token", 0.0)) for o in observations if o.counts.get("prefill_token")
    ]
    return len(shares) == len(observations) and max(shares) - min(shares) >= APART


def _assumed(counts: Mapping[str, float]) -> dict[str, float]:
    """Shares of the time by name, where observations do not tell; they add up to 1 without an environment."""
    tokens = counts.get("decode_token", 0.0) + counts.get("prefill_token", 0.0)
    shares = {name: 0.5 * counts.get(name, 0.0) / tokens for name in ("decode_token", "prefill_token")} if tokens else {}
    return {"decode_step": 0.5, "environment": 0.0, "update": 0.0, "train_token": 1.0, **shares}
