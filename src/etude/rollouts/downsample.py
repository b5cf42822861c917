"""Down-sampling: more attempts are made at a task than are learnt from, and a rule says which of them stay.

Resample on correct (RoC, rStar2-Agent, arXiv:2508.20722): outcome rewards cannot tell a clean right attempt from one that got there through failed tool calls, so of
the right attempts the clean ones are kept, while the wrong ones are drawn at random, so that failures stay as varied as they are. No reward is changed.

Which attempts stay depends on their rewards: what is learnt from is not a sample of the policy any more, and its share of right attempts is not the policy's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Literal

from etude.tasks.answers import count_answers
from etude.types import Trajectory

SMOOTHING = 0.1
"""Added to a penalty before its inverse becomes a weight, so that a clean attempt's weight is finite."""


def tool_penalty(calls: int, errors: int, *, tool_free: float = 0.5) -> float:
    """Share of an attempt's tool calls that failed, in [0, 1]; `tool_free` for an attempt that made none, which pushes towards using the tool."""
    return errors / calls if calls else tool_free


def form_penalty(answers: int, turns: int) -> float:
    """What is wrong with an attempt's form, in [0, 1]: 1 without a final answer, else the answers beyond the first over the turns of the policy."""
    if answers < 1 or turns < 1:
        return 1.0
    return min((answers - 1) / turns, 1.0)


def quotas(positives: int, negatives: int, keep: int, *, min_positives: int = 2, min_negatives: int = 2) -> tuple[int, int]:
    """How many positives and negatives stay of a group, in that order; they sum to `keep`, or to the whole group where it is no larger.

    In proportion to how many there are, rounded half to even, with at least `min_positives` and `min_negatives` of each as far as there are so many. Floors that do not
    fit into `keep` together are lowered to half of it.
    """
    keep = min(keep, positives + negatives)
    least_positives, least_negatives = min(min_positives, positives), min(min_negatives, negatives)
    if least_positives + least_negatives > keep:
        least_positives, least_negatives = min(least_positives, keep // 2), min(least_negatives, keep // 2)
    share = round(negatives * keep / (positives + negatives)) if keep else 0
    kept = max(min(share, keep - least_positives), least_negatives, keep - positives)
    return keep - kept, kept


def least_penalised(penalties: Sequence[float], keep: int) -> list[int]:
    """Places of the `keep` smallest penalties, ascending; of equal ones the first (attempts at a task are exchangeable, so that order carries no meaning)."""
    return sorted(range(len(penalties)), key=lambda i: penalties[i])[:keep]


def weighted_by_penalty(penalties: Sequence[float], keep: int, random: Random) -> list[int]:
    """`keep` places drawn without replacement, each with a weight of 1 / (penalty + 0.1) (the keys of Efraimidis and Spirakis, 2006)."""
    keys = [random.random() ** (penalty + SMOOTHING) for penalty in penalties]
    return sorted(range(len(penalties)), key=lambda i: -keys[i])[:keep]


def resample_on_correct(
    rewards: Sequence[float],
    penalties: Sequence[float],
    keep: int,
    random: Random,
    *,
    min_positives: int = 2,
    min_negatives: int = 2,
    prefer: Literal["sorted", "weighted"] = "sorted",
) -> list[int]:
    """Places in a group of the attempts that stay, ascending; empty for a group whose rewards are all equal, which teaches nothing.

    rewards: above 0 is positive; an attempt that could not be judged (NaN) never stays. penalties: one an attempt, of which only those of positives are read.
    prefer: `sorted` keeps the positives with the least penalty, as the released code does; `weighted` draws them, as the report describes.
    """
    judged = [i for i, reward in enumerate(rewards) if not math.isnan(reward)]
    if len({rewards[i] for i in judged}) < 2:
        return []
    positives = [i for i in judged if rewards[i] > 0]
    negatives = [i for i in judged if rewards[i] <= 0]
    kept_positives, kept_negatives = quotas(len(positives), len(negatives), keep, min_positives=min_positives, min_negatives=min_negatives)
    costs = [penalties[i] for i in positives]
    chosen = least_penalised(costs, kept_positives) if prefer == "sorted" else weighted_by_penalty(costs, kept_positives, random)
    return sorted([*(positives[i] for i in chosen), *random.sample(negatives, kept_negatives)])


def at_random(count: int, keep: int, random: Random) -> list[int]:
    """`keep` of `count` places, ascending, whatever happened in them: the control."""
    return sorted(random.sample(range(count), min(keep, count)))


def penalty_of(trajectory: Trajectory, *, errors: bool = True, form: bool = True, tool_free: float = 0.5) -> float:
    """The penalty of an attempt, from what its environment reported of its tool and from the final answers in its turns.

    errors: failed calls count. form: the form does.
    """
    calls, failed = int(trajectory.tags.get("tool_calls", 0)), int(trajectory.tags.get("tool_errors", 0))
    total = tool_penalty(calls, failed if errors else 0, tool_free=tool_free)
    if form:
        written = [s.text for s in trajectory.segments if s.author == "policy"]
        total += form_penalty(sum(map(count_answers, written)), len(written))
    return total
