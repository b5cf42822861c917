"""Consensus: what several independent verdicts on one thing are worth when there is nobody to ask but the judge (KnowRL, arXiv:2510.11407).

A reward for agreement is at its largest for any constant verdict: consistency is not truth. What keeps it from that is outside this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Consensus:
    """majority: the verdict that more attempts give than any other; None for a tie or where there is no valid verdict. share: of all attempts, those that gave it."""

    majority: str | None
    share: float


def consensus_of(verdicts: Sequence[str | None]) -> Consensus:
    """What k verdicts agree on. None, an attempt without a valid verdict, does not vote but counts among the k."""
    votes = Counter(v for v in verdicts if v is not None).most_common(2)
    if not votes or (len(votes) == 2 and votes[0][1] == votes[1][1]):
        return Consensus(None, votes[0][1] / len(verdicts) if votes else 0.0)
    return Consensus(votes[0][0], votes[0][1] / len(verdicts))


def consensus_rewards(verdicts: Sequence[str | None], *, graded: bool = False) -> list[float]:
    """1 for a verdict that is the majority's and 0 for any other; graded: the majority's share q and 1 - q.

    An invalid verdict gets 0 in both forms; where there is no majority all get 0.
    """
    found = consensus_of(verdicts)
    if found.majority is None:
        return [0.0] * len(verdicts)
    agree, differ = (found.share, 1 - found.share) if graded else (1.0, 0.0)
    return [0.0 if v is None else agree if v == found.majority else differ for v in verdicts]
