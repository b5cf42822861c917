"""Choosing among nodes that were each tried some times, as a bandit chooses among arms: Thompson sampling, its schedule, when to add an arm, and which arm to trust.

Counts come as `Statistics` of successes: `total` of `visits` trials succeeded. Whether they are a node's own (`Node.own`) or those of its whole clade
(`Node.statistics`: the node and all its descendants) is the choice that HGM (arXiv:2510.21614) is about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np

from etude.search.tree import Statistics

LARGEST_PARAMETER = 1e7
"""Largest parameter of a Beta distribution that is drawn from: beyond it draws differ by less than anybody can measure."""
DGM_STEEPNESS, DGM_MIDDLE = 10.0, 0.5
"""How steeply DGM's preference for a parent rises with its share of successes, and where it is a half."""


def clade_sums(own: Sequence[Statistics], parents: Sequence[int | None]) -> list[Statistics]:
    """Of each node the trials of itself and all its descendants, from every node's own trials and its parent, which has a lower number (None: the root).

    HGM's estimate of clade metaproductivity (CMP) is `value` of these. They are new objects: pooling must never write into a node's own counts.
    """
    visits, totals = [s.visits for s in own], [s.total for s in own]
    for number in range(len(own) - 1, -1, -1):
        parent = parents[number]
        if parent is not None:
            visits[parent] += visits[number]
            totals[parent] += totals[number]
    return [Statistics(n, w) for n, w in zip(visits, totals, strict=True)]


def posterior(trials: Statistics, sharpness: float = 1.0) -> tuple[float, float]:
    """Parameters of the Beta distribution that a Thompson draw is from: sharpness * (1 + successes, 1 + failures).

    Where one would exceed LARGEST_PARAMETER both are scaled down, which keeps the mean.
    """
    successes, failures = 1 + trials.total, 1 + trials.visits - trials.total
    sharpness = min(sharpness, LARGEST_PARAMETER / max(successes, failures))
    return sharpness * successes, sharpness * failures


def thompson(candidates: Sequence[tuple[int, Statistics]], sharpness: float, random: Random) -> int:
    """The candidate (a number, and its trials) with the highest draw from its posterior. Raises ValueError without any."""
    parameters = np.array([posterior(trials, sharpness) for _, trials in candidates])
    draws = np.random.default_rng(random.getrandbits(64)).beta(parameters[:, 0], parameters[:, 1])
    return candidates[int(draws.argmax())][0]


def sharpness(share: float, exponent: float = 1.0) -> float:
    """HGM's schedule tau = B / b of the budget and what is left of it: broad draws early, sharp ones late. exponent: of that ratio; 0 leaves draws as they are.

    share: of the budget that is spent, in [0, 1]; infinite at the end, where `posterior` keeps the parameters finite.
    """
    left = 1 - min(1.0, share)
    return (1 / left) ** exponent if left > 0 else LARGEST_PARAMETER if exponent > 0 else 1.0


def another_arm(trials: int, arms: int, exponent: float = 0.6) -> bool:
    """Whether a bandit of ever more arms should take one more, as UCB-AIR has it: while trials ** exponent >= arms. arms: without the first, with those on the way."""
    return trials**exponent >= arms


def dgm_weights(rates: Sequence[float], children: Sequence[int]) -> list[float]:
    """How likely DGM takes each node as a parent, not normalised: sigmoid(10 (rate - 0.5)) / (1 + children)."""
    return [1 / (1 + math.exp(-DGM_STEEPNESS * (rate - DGM_MIDDLE))) / (1 + n) for rate, n in zip(rates, children, strict=True)]


def posterior_quantile(trials: Statistics, share: float = 0.01) -> float:
    """The success rate that a node is above with probability 1 - share, given its trials and a uniform prior: a `share`-quantile of Beta(1 + successes, 1 + failures)."""
    from scipy.special import betaincinv

    return float(betaincinv(*posterior(trials), share))


def most_trusted(trials: Sequence[Statistics], share: float = 0.01) -> int:
    """The node whose success rate is highest with confidence: the largest posterior quantile; of equal ones the first. Few lucky trials do not win."""
    quantiles = [posterior_quantile(s, share) for s in trials]
    return quantiles.index(max(quantiles))
