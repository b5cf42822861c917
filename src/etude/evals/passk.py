"""pass@k, maj@k and their intervals. Tasks are the sampling unit: samples of one task are not independent evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from etude.errors import InputError
from etude.tasks.answers import same_answer
from etude.types import Metrics

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

VOTES = 200
"""Subsets of samples that maj@k is averaged over when k is smaller than the number of samples."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k samples, drawn without replacement from n of which c are correct, is correct.

    1 - C(n-c, k) / C(n, k), as a product of ratios so that no binomial coefficient overflows: the unbiased estimator of pass@k (Chen et al.,
    arXiv:2107.03374, eq. 1).
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise InputError(f"pass@{k} of {c} correct among {n} samples is not defined; expected 0 <= correct <= samples and 1 <= k <= samples")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod((n - c - i) / (n - i) for i in range(k))


def best_at_k(scores: Sequence[float], k: int) -> float:
    """Expected best score of k samples drawn without replacement: pass@k for verdicts with partial credit, and equal to it for verdicts of 0 and 1.

    With scores in ascending order, the i-th of n is the best of a subset with probability C(i-1, k-1) / C(n, k).
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise InputError(f"the best of {k} among {n} samples is not defined; expected 1 <= k <= samples")
    probability = k / n
    expected = 0.0
    for i, score in zip(range(n, k - 1, -1), sorted(scores, reverse=True), strict=False):
        expected += probability * score
        if i > k:
            probability *= (i - k) / (i - 1)
    return expected


def vote_labels(answers: Sequence[str | None], same: Callable[[str | None, str], bool] = same_answer) -> list[int]:
    """A number for each answer, equal for answers that are the same; -1 for no answer."""
    kinds: list[str] = []
    labels = []
    for answer in answers:
        if answer is None:
            labels.append(-1)
            continue
        label = next((i for i, kind in enumerate(kinds) if same(answer, kind)), len(kinds))
        if label == len(kinds):
            kinds.append(answer)
        labels.append(label)
    return labels


def maj_at_k(labels: Sequence[int], scores: Sequence[float], k: int, *, seed: int = 0) -> float:
    """Score of the answer that most of k samples give (Wang et al., arXiv:2203.11171).

    labels: which answer each of the n samples gave (see `vote_labels`); -1 abstains. scores: verdict on each sample.
    A tie goes to the answer that came first; samples are exchangeable, so this favours none. Nobody's vote scores 0.
    For k < n it is the mean over a fixed number of subsets drawn with `seed`.
    """
    n = len(labels)
    if not 1 <= k <= n:
        raise InputError(f"maj@{k} of {n} samples is not defined; expected 1 <= k <= samples")
    if k == n:
        return _majority_score(labels, scores, range(n))
    generator = np.random.default_rng(seed)
    subsets = [generator.permutation(n)[:k].tolist() for _ in range(VOTES)]
    return float(np.mean([_majority_score(labels, scores, subset) for subset in subsets]))


def _majority_score(labels: Sequence[int], scores: Sequence[float], chosen: Sequence[int]) -> float:
    votes: dict[int, int] = {}
    for i in chosen:
        if labels[i] >= 0:
            votes[labels[i]] = votes.get(labels[i], 0) + 1
    if not votes:
        return 0.0
    winner = max(votes, key=votes.__getitem__)  # of equals the first in the dict, which is the first that was given
    verdicts = [scores[i] for i in chosen if labels[i] == winner]
    return sum(verdicts) / len(verdicts)


def wilson_interval(rate: float, count: float, quantile: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a rate in [0, 1] seen on `count` independent trials (Wilson 1927, JASA 22:209), which may be an effective number."""
    if count <= 0:
        return 0.0, 1.0
    spread = quantile * quantile / count
    centre = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(max(0.0, rate * (1 - rate) * spread + spread * spread / 4)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def task_interval(values: Sequence[float], samples: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval with confidence `level` for the mean of per-task values in [0, 1]; tasks are the sampling unit.

    Wilson's interval on the effective number of trials: as many as would give the standard error seen between tasks, with Student's t for few tasks (the
    design-effect form for clustered samples, Dean and Pagano 2015, J. Surv. Stat. Methodol. 3:484). The variance between tasks counts one further task that is
    solved always or never: without it, a few tasks that happen to agree look surer than they are, above all at rates near 0 and 1 (the tests check coverage).
    `samples` (samples per task) bounds it: n tasks count for n trials at least and n * samples at most.
    """
    n = len(values)
    if n < 2:
        return 0.0, 1.0
    array = np.asarray(values, dtype=float)
    rate = float(np.clip(array.mean(), 0.0, 1.0))
    guess = (n * rate + 1) / (n + 2)
    variance = ((n - 1) * float(array.var(ddof=1)) + guess * (1 - guess)) / n
    # Values in [0, 1] vary at most as verdicts do, so that each task is worth at least one trial.
    trials = min(max(rate * (1 - rate) * n / variance, float(n)), float(n * max(1, samples)))
    normal, t = float(ndtri(0.5 + level / 2)), float(stdtrit(n - 1, 0.5 + level / 2))
    return wilson_interval(rate, trials * (normal / t) ** 2, normal)


def sizes(n: int) -> list[int]:
    """The k that pass@k is reported for: 1, 2, 4, ... up to n, and n itself."""
    return sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})


def summarise(
    task_ids: Sequence[str],
    correct: Sequence[Sequence[float]],
    *,
    answers: Sequence[Sequence[str | None]] | None = None,
    lengths: Sequence[Sequence[float]] | None = None,
    formats: Sequence[Sequence[float]] | None = None,
) -> Metrics:
    """What a set of attempts shows, one row a task, one column a sample.

    correct: verdicts in [0, 1]; NaN where a sample could not be judged, which leaves it out. answers: extracted final answers, None where there is none.
    lengths: generated tokens. formats: verdicts on the form.
    Returns `eval/pass@k` for k = 1, 2, 4, ... n and `eval/maj@n` (where answers exist), each with `_low` and `_high` (95 %, by task), `eval/length`, where there are such
    attempts `eval/length_right` and `eval/length_wrong`, `eval/format`, `eval/tasks`, and `eval/unscored`, the share of samples without a verdict. n is the smallest number
    of judged samples of any task that has some.
    """
    rows: dict[str, list[int]] = {}
    for row, task_id in enumerate(task_ids):
        rows.setdefault(task_id, []).append(row)
    for name, table in (("correct", correct), ("answers", answers), ("lengths", lengths), ("formats", formats)):
        if table is not None and [len(line) for line in table] != [len(line) for line in correct]:
            raise InputError(f"{name} has another shape than correct; expected one row a task and one column a sample in each")
    if len(correct) != len(task_ids) or not task_ids:
        raise InputError(f"{len(task_ids)} task ids and {len(correct)} rows of verdicts; expected at least one, and as many of each")

    pooled = [[(r, i) for r in of_task for i in range(len(correct[r]))] for of_task in rows.values()]
    judged = [[(r, i) for r, i in places if not math.isnan(correct[r][i])] for places in pooled]
    every = sum(map(len, pooled))
    metrics: Metrics = {"eval/tasks": float(len(rows)), "eval/unscored": 1 - sum(map(len, judged)) / every if every else 0.0}
    scored = [places for places in judged if places]
    if scored:
        verdicts = [[min(1.0, max(0.0, correct[r][i])) for r, i in places] for places in scored]
        n = min(map(len, verdicts))
        for k in sizes(n):
            _with_interval(metrics, f"eval/pass@{k}", [best_at_k(row, k) for row in verdicts], samples=max(1, n // k))
        if answers is not None and any(answers[r][i] is not None for places in scored for r, i in places):
            labels = [vote_labels([answers[r][i] for r, i in places]) for places in scored]
            _with_interval(metrics, f"eval/maj@{n}", [maj_at_k(a, v, n) for a, v in zip(labels, verdicts, strict=True)], samples=1)
    for name, table in (("eval/length", lengths), ("eval/format", formats)):
        if table is not None:
            metrics[name] = _mean_of_known([table[r][i] for places in pooled for r, i in places])
    for name, verdict in (("eval/length_right", 1.0), ("eval/length_wrong", 0.0)):
        of_verdict = [] if lengths is None else [lengths[r][i] for places in judged for r, i in places if correct[r][i] == verdict]
        if of_verdict:
            metrics[name] = _mean_of_known(of_verdict)
    return metrics


def _with_interval(metrics: Metrics, name: str, values: list[float], samples: int) -> None:
    low, high = task_interval(values, samples)
    metrics[name] = sum(values) / len(values)
    metrics[f"{name}_low"], metrics[f"{name}_high"] = low, high


def _mean_of_known(values: Sequence[float]) -> float:
    known: NDArray[np.float64] = np.asarray([v for v in values if not math.isnan(v)], dtype=float)
    return float(known.mean()) if known.size else math.nan
