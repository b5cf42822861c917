"""How well a policy judges solutions, whatever share of them is right."""

from __future__ import annotations

import re
from collections.abc import Sequence

from etude.evals.passk import task_interval
from etude.rewards.votes import verified_majority
from etude.tasks.verification import Scale, same
from etude.types import Metrics, mean

CASES = ("right", "wrong", "unanswered")
"""The cases of a scale, best first."""


def confusion(truths: Sequence[float], ratings: Sequence[float | None], scale: Scale) -> list[list[int]]:
    """Counts [3][4]: a row for each true score, best first; a column for each rating, and a last one for what is none of the three."""
    counts = [[0] * 4 for _ in range(3)]
    for truth, rating in zip(truths, ratings, strict=True):
        row = next(i for i, value in enumerate(scale.values) if same(truth, value))
        column = next((i for i, value in enumerate(scale.values) if same(rating, value)), 3)
        counts[row][column] += 1
    return counts


def verification_metrics(truths: Sequence[float], ratings: Sequence[float | None], scale: Scale, prefix: str) -> Metrics:
    """What ratings of solutions are worth; keys begin with `prefix`. Empty without ratings, and without what the solutions do not allow to say.

    `accuracy`: share of ratings that are the very score. `constant`: what always giving the most common score would reach. `balanced`: mean of two recalls, the share
    of right solutions that are rated right and the share of all others that are rated as one of the lower cases; no constant verdict gets beyond 0.5.
    `false_accept`: share of the others that are rated right. `false_reject`: share of right solutions that are rated as a lower case. `unrated`: ratings that are none
    of the scores, or missing. `truth_right`, `says_right` and so on: the histograms of scores and of ratings.
    """
    table = confusion(truths, ratings, scale)
    total = len(truths)
    if not total:
        return {}
    sizes = [sum(row) for row in table]
    right, other = sizes[0], sizes[1] + sizes[2]
    metrics = {
        "accuracy": sum(table[i][i] for i in range(3)) / total,
        "constant": max(sizes) / total,
        "unrated": sum(row[3] for row in table) / total,
    }
    if right:
        metrics["false_reject"] = (table[0][1] + table[0][2]) / right
    if other:
        metrics["false_accept"] = (table[1][0] + table[2][0]) / other
    if right and other:
        metrics["balanced"] = (table[0][0] / right + sum(table[i][j] for i in (1, 2) for j in (1, 2)) / other) / 2
    for i, case in enumerate(CASES):
        metrics[f"truth_{case}"] = sizes[i] / total
        metrics[f"says_{case}"] = sum(row[i] for row in table) / total
    return {prefix + name: value for name, value in metrics.items()}


def acceptance_metrics(right: Sequence[bool], accepted: Sequence[bool | None]) -> Metrics:
    """What yes-or-no verdicts on answers are worth. None, a verdict that could not be read, counts as a no. Empty without verdicts; a value that they leave undefined is
    left out.

    `precision`: of the accepted answers, the share that is right. `recall`: of the right ones, the share that is accepted. `specificity`: of the wrong ones, the
    share that is not. `balanced`: mean of the last two, 0.5 for any constant. `accepted`: share of all.
    """
    pairs = [(truth, verdict is True) for truth, verdict in zip(right, accepted, strict=True)]
    if not pairs:
        return {}
    of_accepted, of_right, of_wrong = [r for r, a in pairs if a], [a for r, a in pairs if r], [not a for r, a in pairs if not r]
    metrics = {"accepted": mean([float(a) for _, a in pairs])}
    for name, values in {"precision": of_accepted, "recall": of_right, "specificity": of_wrong}.items():
        if values:
            metrics[name] = mean([float(v) for v in values])
    if of_right and of_wrong:
        metrics["balanced"] = (metrics["recall"] + metrics["specificity"]) / 2
    return metrics


def weighted_maj(answers: Sequence[Sequence[str | None]], verdicts: Sequence[Sequence[bool]], correct: Sequence[Sequence[float]]) -> Metrics:
    """`eval/weighted_maj@n`: the score of the answer that `verified_majority` elects, as a mean over tasks, with its 95 % interval; a row a task, a column a sample.

    answers: normalised; verdicts: whether the policy rated the sample right; correct: the verifier's. n is the smallest number of samples of a task. To be read
    beside `eval/maj@n`, which counts the same answers without verdicts. Empty where there is nothing to vote on.
    """
    rows = [row for row in zip(answers, verdicts, correct, strict=True) if row[0]]
    if not any(answer is not None for row, _, _ in rows for answer in row):
        return {}
    n = min(len(row) for row, _, _ in rows)
    scores = [
        mean([verdict for verdict, won in zip(of_task, verified_majority(row, said).winners, strict=True) if won], default=0.0) for row, said, of_task in rows
    ]
    low, high = task_interval(scores, 1)
    return {f"eval/weighted_maj@{n}": mean(scores), f"eval/weighted_maj@{n}_low": low, f"eval/weighted_maj@{n}_high": high}


def mentions(texts: Sequence[str], words: Sequence[str]) -> float:
    """Share of texts in which one of the words or phrases stands, case aside, as a whole word. NaN without texts."""
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words), re.IGNORECASE)
    return mean([float(bool(words) and pattern.search(text) is not None) for text in texts])
