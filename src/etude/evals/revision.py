"""What becomes of answers that are given several times over: the whole matrix of rounds and items, and what is read from it.

A single number such as "accuracy rose by two points" hides right answers that were spoilt behind wrong ones that were mended, so both are always counted. Accuracy at
the best of all rounds is an oracle's, which knows when to stop: it is called so, and compares with no other accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from etude.evals.passk import maj_at_k, vote_labels
from etude.tasks.base import RIGHT
from etude.tasks.revisions import ANSWERS, VERDICTS, attempts_of
from etude.types import Metrics, Trajectory

STATES = ("wrong", "right", "unread")
"""What an answer can be. One that cannot be read is not counted among the wrong ones."""
WRONG, SOUND, UNREAD, ABSENT = range(4)
Array = NDArray[np.float64]
CONVERSATION = ("inertia", "escape", "drift", "change_rate", "wrong_to_other", "oscillation")
"""Shares of whole conversations; the others are curves over rounds."""


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


@dataclass(frozen=True)
class Ratio:
    """A share as sum(over) / sum(of) in each column, with an item a row: so that one resampling of the items gives the intervals of all shares.

    over, of: [Q, C]. Both vary with the items: "of the wrong answers, how many were mended" counts other items in every round.
    """

    over: Array
    of: Array

    def value(self, weights: Array | None = None) -> Array:
        """[C], or [B, C] for weights [B, Q] of the items. NaN where nothing is counted."""
        over, of = (a.sum(axis=0) if weights is None else weights @ a for a in (self.over, self.of))
        return np.where(of > 0, over / np.where(of > 0, of, 1.0), np.nan)


def states(rounds: Rounds) -> NDArray[np.int64]:
    """[Q, R] what each answer is: 0 wrong, 1 right, 2 one that could not be read (and was not judged right), 3 none: the item has no such round."""
    count = rounds.right.shape[1]
    read = np.array([[k < len(row) and row[k] is not None for k in range(count)] for row in rounds.answers]).reshape(-1, count)
    kinds = np.where(rounds.right >= RIGHT, SOUND, np.where(read, WRONG, UNREAD))
    return np.where(np.isnan(rounds.right), ABSENT, kinds)


def transitions(rounds: Rounds) -> NDArray[np.int64]:
    """[R - 1, 3, 3] items that go from one of STATES (axis 1) to another (axis 2) between neighbouring rounds."""
    kinds = states(rounds).T
    steps = [[[int(((a == i) & (b == j)).sum()) for j in range(3)] for i in range(3)] for a, b in pairwise(kinds)]
    return np.array(steps, dtype=np.int64).reshape(-1, 3, 3)


def shares(rounds: Rounds, options: Array | None = None) -> dict[str, Ratio]:
    """What is counted over rounds [Q, R] and over whole conversations [Q, 1]. Answers that cannot be read are no wrong ones, and have names of their own.

    `accuracy`; `gain` over round 0; `oracle`, the best verdict so far. From the round before, of all items: `fixed` and `broken`, wrong to right and back; `net`, their
    difference; `recovered` and `lost`, unread to right and back, so that accuracy rises by net + recovered - lost; `changed`, another answer. `fix_rate`, `break_rate`: of
    those that were wrong, and of those that were right. `unread`: answers that could not be read.
    options [Q], how many (M) an item has, adds `chance_corrected`, (accuracy - 1/M) / (1 - 1/M), and `fix_by_chance`, the fix rate of somebody who leaves a wrong option as
    often and takes any other, 1/(M - 1) of changes.

    Of conversations: `inertia` and `escape`, of items wrong at first those that end with the same answer, and those that are right at some time; `drift`, of items right at
    first those not right in the end; `change_rate` of all steps; `wrong_to_other`, of steps from a wrong answer those to another wrong one; `oscillation`, items with two
    changes or more.
    """
    right, kinds = np.nan_to_num(rounds.right), states(rounds)
    count, columns = right.shape
    known = kinds != ABSENT
    before = np.concatenate([np.full((count, 1), ABSENT), kinds[:, :-1]], axis=1)
    after = known & (before != ABSENT)
    moves = np.zeros((count, columns))
    for k in range(1, columns):
        moves[:, k] = np.nan_to_num(rounds.changed(k - 1, k))

    def step(origin: int, target: int) -> Array:
        return _floats((before == origin) & (kinds == target))

    fixed, broken = step(WRONG, SOUND), step(SOUND, WRONG)
    from_wrong, from_right = _floats(after & (before == WRONG)), _floats(after & (before == SOUND))
    found = {
        "accuracy": Ratio(right, _floats(known)),
        "gain": Ratio((right - right[:, :1]) * known, _floats(known)),
        "oracle": Ratio(np.maximum.accumulate(right, axis=1), np.ones((count, columns))),
        "fixed": Ratio(fixed, _floats(after)),
        "broken": Ratio(broken, _floats(after)),
        "net": Ratio(fixed - broken, _floats(after)),
        "recovered": Ratio(step(UNREAD, SOUND), _floats(after)),
        "lost": Ratio(step(SOUND, UNREAD), _floats(after)),
        "changed": Ratio(moves, _floats(after)),
        "fix_rate": Ratio(fixed, from_wrong),
        "break_rate": Ratio(broken, from_right),
        "unread": Ratio(_floats(kinds == UNREAD), _floats(known)),
    }
    if options is not None:
        chance = 1 / options[:, None]
        found["chance_corrected"] = Ratio((right - chance) * known, (1 - chance) * known)
        found["fix_by_chance"] = Ratio(from_wrong * moves / (options[:, None] - 1), from_wrong)
    wrong_first, right_first, whole = kinds[:, 0] == WRONG, kinds[:, 0] == SOUND, known[:, -1]
    return found | {
        "inertia": _of(rounds.changed(0, columns - 1) == 0, wrong_first & whole),
        "escape": _of((kinds == SOUND).any(axis=1), wrong_first),
        "drift": _of(kinds[:, -1] != SOUND, right_first & whole),
        "change_rate": Ratio(moves.sum(axis=1, keepdims=True), _floats(after).sum(axis=1, keepdims=True)),
        "wrong_to_other": Ratio((from_wrong * moves * (kinds == WRONG)).sum(axis=1, keepdims=True), from_wrong.sum(axis=1, keepdims=True)),
        "oscillation": _of(moves.sum(axis=1) >= 2, np.full(count, columns > 1)),
    }


def _floats(mask: NDArray[np.bool_]) -> Array:
    return mask.astype(np.float64)


def _of(those: NDArray[np.bool_], all_: NDArray[np.bool_]) -> Ratio:
    return Ratio(_floats(those & all_)[:, None], _floats(all_)[:, None])


def dynamics(rounds: Rounds) -> Metrics:
    """How answers behave over rounds: `best_round` (from 0), `late_loss`, accuracy there less in the last round, `unread` answers, and of `shares` those of whole
    conversations. NaN where no item is of the kind that a number is about."""
    found = shares(rounds)
    best = int(np.nanargmax(rounds.accuracy))
    whole = {name: float(ratio.value()[0]) for name, ratio in found.items() if name in CONVERSATION}
    unread = found["unread"]
    return {
        "best_round": float(best),
        "late_loss": float(rounds.accuracy[best] - rounds.accuracy[-1]),
        **whole,
        "unread": float(unread.over.sum() / unread.of.sum()),
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
