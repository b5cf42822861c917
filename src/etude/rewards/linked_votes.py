"""Votes over two linked groups: attempts at two wordings of one question, and which vote is whose label (Co-Reward, arXiv:2508.00410).

Everything is about the final answers of two groups, one text or None an attempt, normalised so that equal answers are equal texts. None never votes and is never
rewarded. A tie is broken by the generator.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from etude.rewards.votes import Vote, majority
from etude.tasks.base import RIGHT
from etude.types import Group, Metrics, mean, trajectories_of

Answers = Sequence[str | None]


@dataclass(frozen=True)
class LinkedVotes:
    """The votes of two linked groups and the label that each of them is judged by; a label is None where nobody voted, and then nothing is rewarded."""

    votes: tuple[Vote, Vote]
    labels: tuple[str | None, str | None]

    @property
    def agree(self) -> bool:
        """Whether both groups voted, and for the same answer."""
        first, second = (vote.answer for vote in self.votes)
        return first is not None and first == second


Labelling = Callable[[Answers, Answers, Random], LinkedVotes]


def own(first: Answers, second: Answers, rng: Random) -> LinkedVotes:
    """Each group is judged by its own vote, as if there were no other."""
    votes = majority(first, rng), majority(second, rng)
    return LinkedVotes(votes, (votes[0].answer, votes[1].answer))


def crossed(first: Answers, second: Answers, rng: Random) -> LinkedVotes:
    """Each group is judged by the other's vote (arXiv:2508.00410, equation 7): an answer earns something only if both wordings lead to it."""
    votes = majority(first, rng), majority(second, rng)
    return LinkedVotes(votes, (votes[1].answer, votes[0].answer))


def pooled(first: Answers, second: Answers, rng: Random) -> LinkedVotes:
    """Both groups are judged by one vote of all attempts."""
    votes = majority(first, rng), majority(second, rng)
    both = majority([*first, *second], rng).answer
    return LinkedVotes(votes, (both, both))


def matches(answers: Answers, label: str | None) -> list[float]:
    """1 for each answer that is the label, else 0; all 0 where there is no label."""
    return [float(answer is not None and answer == label) for answer in answers]


def linked_metrics(pairs: Sequence[tuple[Group, Group]], answers: Sequence[tuple[Answers, Answers]], votes: Sequence[LinkedVotes]) -> Metrics:
    """How the votes of a batch of pairs went, as means over pairs or groups. For logging only: nothing learns from it.

    `votes/agreement`: pairs whose two votes agree. `votes/majority_ratio`: share of a group's attempts behind its own vote. `votes/unanswered`: attempts without a
    final answer. `votes/top_answer`: share of all attempts of the batch that give its most common answer: different questions have different answers, so that it
    rises when one answer is given to everything. `votes/answers`: different answers a group.
    Where attempts have verdicts: `votes/majority_accuracy`: groups whose own vote is right. `votes/agreement_wrong`: pairs whose votes agree on a wrong answer.
    `votes/label_accuracy`: groups whose label is right; a label that no judged attempt of either group gave counts as wrong. `votes/reward_accuracy`: attempts that the
    label rewards as the verdict would. `votes/right_share`: right attempts.
    """
    flat = [answer for both in answers for row in both for answer in row]
    given = Counter(answer for answer in flat if answer is not None)
    metrics: Metrics = {
        "votes/agreement": mean([float(v.agree) for v in votes]),
        "votes/majority_ratio": mean([vote.ratio for v in votes for vote in v.votes]),
        "votes/unanswered": 1 - sum(given.values()) / len(flat) if flat else math.nan,
        "votes/top_answer": max(given.values(), default=0) / len(flat) if flat else math.nan,
        "votes/answers": mean([float(len(set(row) - {None})) for both in answers for row in both]),
    }
    majorities, agreed_wrong, labels, rewards, right = [], [], [], [], []
    for pair, rows, linked in zip(pairs, answers, votes, strict=True):
        verdicts = [t.rewards.get("correct", math.nan) for t in trajectories_of(pair)]
        said = [*rows[0], *rows[1]]
        known = [(a, v >= RIGHT) for a, v in zip(said, verdicts, strict=True) if not math.isnan(v)]
        if not known:
            continue
        majorities += [float(_is_right(vote.answer, known)) for vote in linked.votes]
        agreed_wrong.append(float(linked.agree and not _is_right(linked.votes[0].answer, known)))
        labels += [float(_is_right(label, known)) for label in linked.labels]
        right.append(mean([float(r) for _, r in known]))
        paid = [*matches(rows[0], linked.labels[0]), *matches(rows[1], linked.labels[1])]
        rewards.append(mean([float((v >= RIGHT) == bool(p)) for p, v in zip(paid, verdicts, strict=True) if not math.isnan(v)]))
    if labels:
        metrics |= {
            "votes/majority_accuracy": mean(majorities),
            "votes/agreement_wrong": mean(agreed_wrong),
            "votes/label_accuracy": mean(labels),
            "votes/reward_accuracy": mean(rewards),
            "votes/right_share": mean(right),
        }
    return metrics


def _is_right(answer: str | None, known: Sequence[tuple[str | None, bool]]) -> bool:
    """Whether most of the judged attempts that gave an answer were right; False where none did."""
    of_answer = [right for given, right in known if answer is not None and given == answer]
    return 2 * sum(of_answer) > len(of_answer)
