"""What becomes of answers that are given several times over: the whole matrix of rounds and items, and what is read from it.

A single number such as "accuracy rose by two points" hides right answers that were spoilt behind wrong ones that were mended, so both are always counted. Accuracy at
the best of all rounds is an oracle's, which knows when to stop: it is called so, and compares with no other accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from etude.evals.passk import maj_at_k, vote_labels
from etude.tasks.revisions import ANSWERS, VERDICTS, attempts_of
from etude.types import Metrics, Trajectory

RIGHT = 0.5
"""A verdict from here on is a right answer."""


@dataclass(frozen=True)
class Rounds:
    """Q items over R rounds, R at least 1.

    right: [Q, R] verdicts in [0, 1], NaN where an item has no such round. answers: [Q][R] final answers in one normal form, None where none could be read. texts:
    [Q][R], where they are known.
    """

    right: NDArray[np.float64]
    answers: Sequence[Sequence[str | None]]
    texts: Sequence[Sequence[str]] = ()

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory], answer_in: Callable[[str], str | None]) -> Rounds:
        """The rounds of judged episodes of several attempts. An episode that broke off before its last round has no verdicts from there on.

        Where the attempts are no turns of their own, the tag ANSWERS holds their answers, and there are no texts to compare.
        """
        verdicts = [t.tags[VERDICTS] for t in trajectories]
        rounds = max((len(row) for row in verdicts), default=1)
        right = [[*map(float, row), *[np.nan] * (rounds - len(row))] for row in verdicts]
        matrix = np.array(right, dtype=np.float64).reshape(-1, rounds)
        if all(ANSWERS in t.tags for t in trajectories):
            return cls(matrix, [t.tags[ANSWERS] for t in trajectories])
        texts = [attempts_of(t) for t in trajectories]
        return cls(matrix, [[answer_in(text) for text in row] for row in texts], texts)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """[R] mean verdict of each round."""
        return np.array([_mean(column) for column in self.right.T])

    @property
    def oracle(self) -> NDArray[np.float64]:
        """[R] mean of the best verdict up to each round: what somebody would reach who knew when to stop. It never falls."""
        return np.array([_mean(np.fmax.reduce(self.right[:, : k + 1], axis=1)) for k in range(self.right.shape[1])])

    def flips(self, before: int, after: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """[Q], [Q]: which items became right from one round to another, and which became wrong. Items without both rounds did neither."""
        known = ~np.isnan(self.right[:, before]) & ~np.isnan(self.right[:, after])
        was, now = self.right[:, before] >= RIGHT, self.right[:, after] >= RIGHT
        return known & ~was & now, known & was & ~now

    def changed(self, before: int, after: int) -> NDArray[np.float64]:
        """[Q] 1 where the final answer is another in the later round, 0 where it is the same, NaN for an item without both."""
        return np.array([float(row[before] != row[after]) if len(row) > max(before, after) else np.nan for row in self.answers])


def revision_metrics(rounds: Rounds) -> Metrics:
    """What the first answers and the last ones differ in, and how the rounds between them went. Shares of all items unless said otherwise.

    `correct@k`: accuracy of round k, counted from 1. `delta`: of the last less the first. `fixed`, `broken`: wrong first and right in the end, and the reverse.
    `fix_rate`, `break_rate`: the same, of those wrong and those right at first. `changed`: another final answer. `edit_ratio`: edit distance between the first and the
    last text over both lengths. `oracle_stop`: the best of all rounds, which nobody reaches without knowing the answers.
    """
    count = rounds.right.shape[1]
    last, first = rounds.right[:, -1], rounds.right[:, 0]
    fixed, broken = rounds.flips(0, -1)
    metrics: Metrics = {f"correct@{k + 1}": float(value) for k, value in enumerate(rounds.accuracy)}
    metrics |= {
        "delta": _mean(last - first),
        "fixed": _mean(fixed),
        "broken": _mean(broken),
        "fix_rate": _mean(fixed[first < RIGHT]),
        "break_rate": _mean(broken[first >= RIGHT]),
        "changed": _mean(rounds.changed(0, count - 1)),
        "oracle_stop": float(rounds.oracle[-1]),
    }
    if rounds.texts:
        metrics["edit_ratio"] = _mean([edit_ratio(row[0], row[-1]) for row in rounds.texts if row])
    return metrics


def dynamics(rounds: Rounds) -> Metrics:
    """How answers behave over rounds. NaN where no item is of the kind that a number is about.

    `best_round` (from 0) and `late_loss`, accuracy there less in the last round. `inertia`: of items wrong at first, the share whose last answer is the first one.
    `escape`: of those, the share that was right at some time. `drift`: of items right at first, the share that is wrong in the end. `oscillation`: items whose answer
    changed twice or more. `wrong_to_other`: of the steps from a wrong answer, the share that goes to another wrong one. `unread`: answers that could not be read.
    """
    right, count = rounds.right, rounds.right.shape[1]
    wrong_first, right_first = right[:, 0] < RIGHT, right[:, 0] >= RIGHT
    best = int(np.nanargmax(rounds.accuracy))
    moves = np.array([rounds.changed(k - 1, k) for k in range(1, count)]).reshape(count - 1, len(right)).T
    from_wrong, stays_wrong = right[:, :-1] < RIGHT, right[:, 1:] < RIGHT
    return {
        "best_round": float(best),
        "late_loss": float(rounds.accuracy[best] - rounds.accuracy[-1]),
        "inertia": _mean(1 - rounds.changed(0, count - 1)[wrong_first]),
        "escape": _mean(np.nanmax(right[wrong_first], axis=1) >= RIGHT) if wrong_first.any() else float("nan"),
        "drift": _mean(right[right_first, -1] < RIGHT),
        "change_rate": _mean(moves),
        "oscillation": _mean(np.nansum(moves, axis=1) >= 2) if count > 1 else float("nan"),
        "wrong_to_other": _mean((stays_wrong & (moves == 1))[from_wrong]),
        "unread": _mean([float(answer is None) for row in rounds.answers for answer in row]),
    }


def revised(trajectories: Sequence[Trajectory], answer_in: Callable[[str], str | None]) -> Metrics:
    """`revision_metrics` of episodes with several attempts; empty where there are none."""
    several = [t for t in trajectories if len(t.tags.get(VERDICTS, ())) > 1]
    return revision_metrics(Rounds.of(several, answer_in)) if several else {}


def corrected_votes(rows: Sequence[Sequence[Trajectory]], answer_in: Callable[[str], str | None]) -> Metrics:
    """Two ways to spend the same attempts on a task and then vote: K episodes of R attempts, whose last answers vote, or K * R first answers (SCoRe, arXiv:2409.12917).

    rows: judged episodes, one row a task, one column a sample; K is a row's length over R, rounded down. `maj@K_corrected` and `maj@N_first`, N being K * R. Empty where
    K is below 2, and where an episode broke off or could not be judged.
    """
    attempts = [[t.tags.get(VERDICTS, ()) for t in row] for row in rows]
    count = max((len(v) for row in attempts for v in row), default=0)
    voters = min((len(row) for row in rows), default=0) // count if count > 1 else 0
    if voters < 2 or any(len(v) != count or any(x != x for x in v) for row in attempts for v in row):
        return {}

    answers = [Rounds.of(row, answer_in).answers for row in rows]

    def worth(number: int, k: int) -> float:
        labels = [vote_labels([given[number] for given in row]) for row in answers]
        scores = [[float(v[number]) for v in row] for row in attempts]
        return _mean([maj_at_k(a, b, k) for a, b in zip(labels, scores, strict=True)])

    return {f"maj@{voters}_corrected": worth(-1, voters), f"maj@{voters * count}_first": worth(0, voters * count)}


def edit_ratio(first: str, second: str) -> float:
    """Edit distance between two texts over the sum of their lengths, in characters: 0 for equal texts, 1/2 for unrelated ones of equal length."""
    total = len(first) + len(second)
    return Levenshtein.distance(first, second) / total if total else 0.0


def _mean(values: NDArray[np.float64] | NDArray[np.bool_] | Sequence[float]) -> float:
    array = np.asarray(values, dtype=np.float64).ravel()
    array = array[~np.isnan(array)]
    return float(array.mean()) if len(array) else float("nan")
