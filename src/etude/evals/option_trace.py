"""What happens to the probabilities of options while a model chooses among them again and again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etude.evals.revision import Array


def trace(likelihoods: Array, first: NDArray[np.int64]) -> dict[str, Array]:
    """Four numbers an item and round, each [Q, R].

    likelihoods: [Q, R, M] log-probability of each option as the answer. first: [Q] the option that was chosen in round 0, -1 where none could be read.
    `margin`: log-probability of the first choice less that of the best other one, in nats, NaN without a first choice. Of the options' softmax `entropy` in nats,
    `divergence`, its KL to that of round 0, and `confidence`, its largest entry.
    """
    logs = likelihoods - np.logaddexp.reduce(likelihoods, axis=-1, keepdims=True)
    p = np.exp(logs)
    chosen = (np.arange(likelihoods.shape[-1]) == first[:, None])[:, None, :]
    own = np.where(chosen, likelihoods, 0.0).sum(axis=-1)
    others = np.where(chosen, -np.inf, likelihoods).max(axis=-1)
    return {
        "margin": np.where((first >= 0)[:, None], own - others, np.nan),
        "entropy": -(p * logs).sum(axis=-1),
        "divergence": (p * (logs - logs[:, :1])).sum(axis=-1),
        "confidence": p.max(axis=-1),
    }
