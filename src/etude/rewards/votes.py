"""Votes: the answer that most attempts give, and what it is worth as a reward where there is no reference answer.

Attempts without a final answer do not vote and are never rewarded. Answers are compared as normalised texts, as for maj@k. Of several models' votes each may
weigh by how much its model agrees with itself (`crowd_vote`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from random import Random

from etude.evals.passk import vote_labels
from etude.tasks.answers import normalise
from etude.tasks.base import RIGHT
from etude.types import Group, Metrics, Trajectory, mean


@dataclass(frozen=True)
class Vote:
    """What a group's attempts say: the answer that won, None where nobody gave one; the share of all attempts that gave it; and which attempts those are."""

    answer: str | None
    ratio: float
    winners: tuple[bool, ...]

    @property
    def rewards(self) -> list[float]:
        """1 for attempts that gave the winning answer, 0 for all others (TTRL, arXiv:2504.16084)."""
        return [float(w) for w in self.winners]


def answers_of(attempts: Sequence[Trajectory], answer_in: Callable[[str], str | None]) -> list[str | None]:
    """The final answer of each attempt's last turn, as a normalised text; None where there is none."""
    found = [answer_in(t.last_text) for t in attempts]
    return [normalise(a) if a is not None else None for a in found]


def different_answers(rows: Sequence[Sequence[str | None]]) -> float:
    """How many different final answers a group's attempts give, as the mean over groups; one row a group."""
    return mean([float(len(set(row) - {None})) for row in rows])


def majority(answers: Sequence[str | None], rng: Random) -> Vote:
    """The answer that most attempts give; of several with as many votes one is drawn. None does not vote and cannot win."""
    labels = vote_labels(answers, same=eq)
    votes = Counter(label for label in labels if label >= 0)
    if not votes:
        return Vote(None, 0.0, (False,) * len(labels))
    most = max(votes.values())
    return _won(answers, labels, rng.choice([label for label, count in votes.items() if count == most]))


def any_answer(answers: Sequence[str | None], rng: Random) -> Vote:
    """One of the answers that were given, each as likely as any other however many gave it: the vote's control."""
    labels = vote_labels(answers, same=eq)
    kinds = sorted({label for label in labels if label >= 0})
    return _won(answers, labels, rng.choice(kinds)) if kinds else Vote(None, 0.0, (False,) * len(labels))


def verified_majority(answers: Sequence[str | None], verdicts: Sequence[bool], *, strength: float = 2.0, kinds: float = 2.0) -> Vote:
    """The answer with the most votes that the voters stand by (RISE, arXiv:2505.13445): votes times how often they were verified, pulled towards 1 / kinds.

    verdicts: for each attempt whether its author, asked again, calls it right. An answer of n votes of which s are verified scores n (strength + s) / (n + strength
    kinds): n times the estimate of the rate s / n under `strength` invented verdicts of each of `kinds` kinds. Sums run over the answer's own votes. A tie goes to the
    answer that was given first, as for maj@k. None does not vote and cannot win.
    """
    labels = vote_labels(answers, same=eq)
    votes = Counter(label for label in labels if label >= 0)
    if not votes:
        return Vote(None, 0.0, (False,) * len(labels))
    verified = Counter(label for label, verdict in zip(labels, verdicts, strict=True) if verdict)
    scores = {label: count * (strength + verified[label]) / (count + strength * kinds) for label, count in votes.items()}
    return _won(answers, labels, max(scores, key=scores.__getitem__))


def _won(answers: Sequence[str | None], labels: Sequence[int], winner: int) -> Vote:
    winners = tuple(label == winner for label in labels)
    return Vote(answers[winners.index(True)], sum(winners) / len(winners), winners)


@dataclass(frozen=True)
class CrowdVote:
    """What several models' attempts at one task say together.

    answer: the answer with the highest score, None where nobody gave one. scores: of every answer, the weights of the attempts that gave it, added up.
    total: the weights of all attempts, those without an answer included.
    """

    answer: str | None
    scores: Mapping[str, float]
    total: float

    @property
    def consistency(self) -> float:
        """The winner's share of all weights, in [0, 1]: what learning from such votes maximises. 0 where there is no winner."""
        return self.scores[self.answer] / self.total if self.answer is not None and self.total > 0 else 0.0

    @property
    def margin(self) -> float:
        """By how much of all weights the winner leads the next answer, in [0, 1]."""
        first, second, *_ = [*sorted(self.scores.values(), reverse=True), 0.0, 0.0]
        return (first - second) / self.total if self.total > 0 else 0.0


def self_consistency(answers: Sequence[str | None]) -> float:
    """Share of one model's attempts at a task that give its most common answer, in [0, 1]. Attempts without an answer count, but do not agree."""
    counts = Counter(a for a in answers if a is not None)
    return max(counts.values(), default=0) / len(answers) if answers else 0.0


def consistency_weights(answers: Sequence[Sequence[str | None]], *, power: float = 1.0) -> list[float]:
    """The weight of each model's votes on one task: its self-consistency (RLCCF, arXiv:2508.12338), to a power. One row of answers a model.

    A model that knows agrees with itself and one that guesses does not, so that a specialist can outvote a majority of guessers. The power says how much of that
    is taken into account: with 0 all votes weigh alike.
    """
    return [self_consistency(row) ** power for row in answers]


def crowd_vote(answers: Sequence[Sequence[str | None]], weights: Sequence[float]) -> CrowdVote:
    """The answer with the highest score, where every attempt votes with the weight of the model that made it. One row of answers, and one weight, a model.

    Of equal scores the answer that more attempts gave wins, then the one that was given first. None does not vote and cannot win.
    """
    scores: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for row, weight in zip(answers, weights, strict=True):
        for answer in row:
            if answer is not None:
                scores[answer] = scores.get(answer, 0.0) + weight
                counts[answer] += 1
    # `max` keeps the first of equals. Sums of the same weights in another order may differ in their last digits.
    winner = max(scores, key=lambda a: (round(scores[a], 9), counts[a]), default=None)
    return CrowdVote(winner, scores, sum(w * len(row) for row, w in zip(answers, weights, strict=True)))


def wrong_agreement(answers: Sequence[Sequence[str | None]], right: Sequence[Sequence[bool]]) -> tuple[int, int]:
    """How alike the mistakes of several models at one task are: pairs of wrong attempts of two different models that give the same answer, and all such pairs.

    One row a model, one column an attempt. Attempts without an answer are no part of it.
    """
    wrong = [Counter(a for a, r in zip(row, verdicts, strict=True) if a is not None and not r) for row, verdicts in zip(answers, right, strict=True)]
    same = pairs = 0
    for i, one in enumerate(wrong):
        for other in wrong[:i]:
            same += sum(count * other[answer] for answer, count in one.items())
            pairs += one.total() * other.total()
    return same, pairs


def vote_metrics(groups: Sequence[Group], votes: Sequence[Vote]) -> Metrics:
    """How the votes went and, where attempts have verdicts, how often they were right, as means over groups. For logging only: nothing learns from it.

    `votes/majority_ratio`: share of a group's attempts that gave the winning answer. `votes/undecided`: share of groups where nobody gave one.
    `votes/label_accuracy`: share of groups whose winning answer is right. `votes/reward_accuracy`: share of attempts that the vote rewards as the verdict would.
    `votes/right_share`: right attempts.
    """
    metrics: Metrics = {"votes/majority_ratio": mean([v.ratio for v in votes]), "votes/undecided": mean([float(v.answer is None) for v in votes])}
    labels, rewards, right = [], [], []
    for group, vote in zip(groups, votes, strict=True):
        verdicts = [(t.rewards.get("correct", math.nan), won) for t, won in zip(group.trajectories, vote.winners, strict=True)]
        judged = [(v >= RIGHT, won) for v, won in verdicts if not math.isnan(v)]
        if not judged:
            continue
        of_winners = [r for r, won in judged if won]
        labels.append(float(2 * sum(of_winners) > len(of_winners)))
        rewards.append(mean([float(r == won) for r, won in judged]))
        right.append(mean([float(r) for r, _ in judged]))
    if labels:
        metrics |= {"votes/label_accuracy": mean(labels), "votes/reward_accuracy": mean(rewards), "votes/right_share": mean(right)}
    return metrics


def effective_votes(answers: Sequence[Sequence[str | None]], roots: Sequence[Sequence[int]]) -> tuple[float, float]:
    """How many independent votes a group's are worth when attempts of one tree resemble each other, and that resemblance.

    answers: one row a group. roots: the tree of each of its attempts. With `within` the chance that two attempts of one tree agree and `between` that two of
    different trees do, over all pairs of all groups, the correlation is (within - between) / (1 - between), cut to [0, 1], as for Cohen's kappa. K votes in trees
    of m attempts are worth K / (1 + (m - 1) correlation): the design effect of clusters (Kish 1965), with m the size of the tree that an attempt is in.
    Returns (mean over groups, correlation).
    """
    within, between, counts, sizes = [], [], [], []
    for row, trees in zip(answers, roots, strict=True):
        total = len(row)
        agree, pairs = _agreeing(row)
        inside = [[a for a, t in zip(row, trees, strict=True) if t == tree] for tree in dict.fromkeys(trees)]
        agree_inside, pairs_inside = map(sum, zip(*map(_agreeing, inside), strict=True)) if inside else (0, 0)
        within.append((agree_inside, pairs_inside))
        between.append((agree - agree_inside, pairs - pairs_inside))
        counts.append(total)
        sizes.append(sum(len(tree) ** 2 for tree in inside) / max(1, total))
    correlation = 0.0
    if sum(n for _, n in within) and sum(n for _, n in between):
        same_tree, other_tree = (sum(a for a, _ in pairs) / sum(n for _, n in pairs) for pairs in (within, between))
        correlation = min(1.0, max(0.0, (same_tree - other_tree) / (1 - other_tree))) if other_tree < 1 else 0.0
    return mean([k / (1 + (m - 1) * correlation) for k, m in zip(counts, sizes, strict=True)]), correlation


def _agreeing(answers: Sequence[str | None]) -> tuple[int, int]:
    """Pairs that give the same answer, and all pairs. Attempts without an answer agree with none."""
    counts = Counter(a for a in answers if a is not None)
    return sum(n * (n - 1) // 2 for n in counts.values()), len(answers) * (len(answers) - 1) // 2
