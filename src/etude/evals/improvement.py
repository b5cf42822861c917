"""What a policy gains by taking further steps at test time: the curve of verdict and quality over steps, and what the chain as a whole mended and spoilt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from etude.evals.revision import Rounds, edit_ratio, revision_metrics
from etude.types import Metrics, Trajectory, mean


def rounds_of(chains: Sequence[Sequence[Trajectory]], answer_in: Callable[[str], str | None]) -> Rounds:
    """The rounds of judged chains of equal length, where every attempt is a trajectory of its own. Round 0 is the first attempt."""
    right = np.array([[t.correct for t in chain] for chain in chains], dtype=np.float64)
    return Rounds(right, [[answer_in(t.last_text) for t in chain] for chain in chains], [[t.last_text for t in chain] for chain in chains])


def improvement_metrics(chains: Sequence[Sequence[Trajectory]], answer_in: Callable[[str], str | None]) -> Metrics:
    """What further steps gain. `correct_after@k`, `quality_after@k`: mean verdict and mean reward after k steps, for k of 0, the powers of 2, and the last.

    `step_edit`: mean edit distance between an attempt and the next over both lengths. `chain_...`: `revision_metrics` of the first attempt and the last, without those that
    have no value here. Empty without chains.
    """
    if not chains:
        return {}
    rounds, last = rounds_of(chains, answer_in), len(chains[0]) - 1
    metrics: Metrics = {}
    for k in shown_steps(last):
        metrics[f"correct_after@{k}"] = float(rounds.accuracy[k])
        metrics[f"quality_after@{k}"] = mean([chain[k].reward for chain in chains if not math.isnan(chain[k].reward)])
    if last:
        metrics["step_edit"] = mean([edit_ratio(a.last_text, b.last_text) for chain in chains for a, b in pairwise(chain)])
    whole = {f"chain_{name}": value for name, value in revision_metrics(rounds).items() if "@" not in name}
    return {name: value for name, value in (metrics | whole).items() if not math.isnan(value)}


def shown_steps(last: int) -> list[int]:
    """0, the powers of 2 up to the last step, and the last."""
    return sorted({0, last, *(2**n for n in range(last.bit_length()) if 2**n <= last)})
