"""How alike two spans of tokens are: whether a branch of a tree says something else than its parent. Pure functions of token ids; `rouge_l` takes words as well."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rapidfuzz.distance import LCSseq, Levenshtein


def edit_distance(first: Sequence[int], second: Sequence[int]) -> float:
    """Insertions, deletions and substitutions that turn one span into the other (Levenshtein), over the longer length: 0 for equal spans, 1 for unrelated ones."""
    return Levenshtein.normalized_distance(first, second)


def suffix_match(first: Sequence[int], second: Sequence[int]) -> float:
    """The longest end of either span that occurs as a whole anywhere in the other, over the longer length: 1 for equal spans.

    A branch that has come back to its parent's words, earlier or later than it left them, ends in them.
    """
    longest = max(_longest_suffix(first, second), _longest_suffix(second, first))
    return longest / max(len(first), len(second), 1)


def rouge_l(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """F1 of the longest common subsequence (ROUGE-L): twice its length over the sum of both lengths. 1 for equal spans."""
    total = len(first) + len(second)
    return 2 * LCSseq.similarity(first, second) / total if total else 1.0


def _longest_suffix(of: Sequence[int], within: Sequence[int]) -> int:
    """Length of the longest suffix of one sequence that occurs contiguously in another."""
    best = 0
    for end in range(len(within), 0, -1):
        length = 0
        while length < min(end, len(of)) and within[end - 1 - length] == of[len(of) - 1 - length]:
            length += 1
        best = max(best, length)
    return best
