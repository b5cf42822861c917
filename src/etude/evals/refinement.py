"""What answers gain by the policy's own feedback, and what that feedback is worth where labels can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from etude.evals.passk import maj_at_k, vote_labels
from etude.evals.revision import Rounds, revision_metrics
from etude.evals.verification import acceptance_metrics
from etude.rollouts.refinement import Chain, chain_metrics
from etude.tasks.base import RIGHT
from etude.types import Metrics, mean


def refined_metrics(rows: Sequence[Sequence[Chain]], refinements: int, answer_in: Callable[[str], str | None]) -> Metrics:
    """Direct answers beside refined ones, keyed `eval/...`; one row of judged chains a task. Values that nothing defines are left out; empty without chains.

    `revision_metrics` with `correct@1` for direct answers and `correct@k+1` for what stands after k refinements at most. `refined_maj@n`: a vote over the refined
    answers, n the smallest number of them of a task. `feedback_...`: `feedback_metrics`.
    """
    rows = [row for row in rows if row]
    chains = [c for row in rows for c in row]
    if not chains:
        return {}
    steps = [[c.answer(k) for k in range(refinements + 1)] for c in chains]
    texts = [[a.text for a in row] for row in steps]
    right = np.array([[a.correct for a in row] for row in steps], dtype=np.float64)
    metrics = revision_metrics(Rounds(right, [[answer_in(text) for text in row] for row in texts], texts))
    votes = [maj_at_k(vote_labels([answer_in(c.final.text) for c in row]), [c.final.correct for c in row], len(row)) for row in rows]
    metrics[f"refined_maj@{min(map(len, rows))}"] = mean(votes)
    metrics |= {f"feedback_{name}": value for name, value in feedback_metrics(chains).items()}
    return {f"eval/{name}": value for name, value in metrics.items() if not math.isnan(value)}


def feedback_metrics(chains: Sequence[Chain]) -> Metrics:
    """`acceptance_metrics` over all answers that feedback was asked for and that a label judges; and `unread`, the share of all feedback that gives no verdict."""
    pairs = [(a.correct >= RIGHT, v) for c in chains for a, v in zip(c.answers, c.verdicts, strict=False) if not math.isnan(a.correct)]
    metrics = acceptance_metrics([right for right, _ in pairs], [verdict for _, verdict in pairs])
    verdicts = [v for c in chains for v in c.verdicts]
    return metrics | ({"unread": mean([float(v is None) for v in verdicts])} if verdicts else {})


def evolution_metrics(chains: Sequence[Chain], kept: Sequence[Chain]) -> Metrics:
    """How a round's examples were made, and how well by the labels, where there are any.

    `evolve/kept`: share that the filter lets through; `evolve/...` of `chain_metrics`. `evolve/accuracy_first`, `_unfiltered`, `_filtered`: accuracy of first answers, of
    final ones before the filter, and behind it. `feedback/...`: `feedback_metrics`.
    """
    metrics: Metrics = {"evolve/kept": len(kept) / len(chains)} if chains else {}
    metrics |= {f"evolve/{name}": value for name, value in chain_metrics(chains).items()}
    parts = {"first": [c.answers[0] for c in chains], "unfiltered": [c.final for c in chains], "filtered": [c.final for c in kept]}
    for name, answers in parts.items():
        known = [a.correct for a in answers if not math.isnan(a.correct)]
        if known:
            metrics[f"evolve/accuracy_{name}"] = mean(known)
    return metrics | {f"feedback/{name}": value for name, value in feedback_metrics(chains).items()}
