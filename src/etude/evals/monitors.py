"""Exploration and exploitation of a batch of attempts, in the spirit of B-STaR (arXiv:2412.17256, section 2).

Exploration: does the policy still find right answers, and different ones? Exploitation: does the reward still tell right attempts from wrong ones? Either can run
dry while the other looks well. Both need verdicts beside the reward; attempts without one are left out, and without any there is nothing to report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from etude.types import Group, Metrics, Trajectory, mean

RIGHT = 1 - 1e-9
"""A verdict from which an attempt counts as right; partial credit does not."""
WAYS = 4
"""Different right solutions that a task needs to count as solved in several ways (the paper's Pass@K-S with S = 4)."""


def exploration(groups: Sequence[Group]) -> Metrics:
    """What the attempts at each task (a group) reach, as means over tasks; empty when no attempt has a verdict.

    `explore/solved`: share of tasks with at least one right attempt: pass@k at k = the group's size. `explore/pass_gap`: pass@k minus pass@1, which is the room
    that is left to learn from the policy's own attempts. `explore/right_ways`: different right solutions a task. `explore/several_ways`: share of tasks with at
    least WAYS of them. `explore/distinct`: different texts among a task's attempts, as a share. Texts that differ in white space or case alone are the same.
    """
    rows = [row for row in map(_judged, groups) if row]
    if not rows:
        return {}
    best = [max(t.rewards["correct"] for t in row) for row in rows]
    average = [mean([t.rewards["correct"] for t in row]) for row in rows]
    ways = [len({_solution(t) for t in row if t.rewards["correct"] >= RIGHT}) for row in rows]
    return {
        "explore/solved": mean([float(b >= RIGHT) for b in best]),
        "explore/pass_gap": mean(best) - mean(average),
        "explore/right_ways": mean([float(n) for n in ways]),
        "explore/several_ways": mean([float(n >= WAYS) for n in ways]),
        "explore/distinct": mean([len({_solution(t) for t in row}) / len(row) for row in rows]),
    }


def exploitation(groups: Sequence[Group]) -> Metrics:
    """How well the reward finds the right attempts among those at one task; empty when no attempt has both.

    `exploit/auc`: of all pairs of a right and a wrong attempt at the same task, the share in which the right one has the higher reward, ties counting one half:
    the area under the ROC curve, which is Mann and Whitney's U over the number of pairs. 0.5 is blind, below it misleads; left out where there are no pairs.
    `exploit/best_by_reward`: verdict on the attempt with the highest reward, averaged over ties and then tasks. `exploit/gain`: that minus the mean verdict, at
    most `explore/pass_gap`. `exploit/best_ways`: share of tasks whose WAYS attempts with the highest rewards are all right, of those with that many attempts.
    """
    rows = [row for row in ([t for t in _judged(g) if math.isfinite(t.reward)] for g in groups) if row]
    if not rows:
        return {}
    won = pairs = 0.0
    chosen, average = [], []
    for row in rows:
        verdicts = np.array([t.rewards["correct"] for t in row])
        rewards = np.array([t.reward for t in row])
        right, wrong = rewards[verdicts >= RIGHT], rewards[verdicts < RIGHT]
        pairs += len(right) * len(wrong)
        won += float(np.sum(right[:, None] > wrong) + 0.5 * np.sum(right[:, None] == wrong))
        chosen.append(float(verdicts[rewards == rewards.max()].mean()))
        average.append(float(verdicts.mean()))
    metrics = {"exploit/best_by_reward": mean(chosen), "exploit/gain": mean(chosen) - mean(average)}
    several = [best_all_right([(t.reward, t.rewards["correct"] >= RIGHT) for t in row], WAYS) for row in rows if len(row) >= WAYS]
    metrics |= {"exploit/best_ways": mean(several)} if several else {}
    return metrics | ({"exploit/auc": won / pairs} if pairs else {})


def best_all_right(attempts: Sequence[tuple[float, bool]], count: int) -> float:
    """Chance that the `count` attempts with the highest rewards are all right, where ties are drawn at random (the paper's Reward@K-S, for one task).

    attempts: reward of each, and whether it is right; at least `count` of them.
    """
    last = sorted((reward for reward, _ in attempts), reverse=True)[count - 1]
    above = [right for reward, right in attempts if reward > last]
    tied = [right for reward, right in attempts if reward == last]
    wanted = count - len(above)
    return all(above) * math.comb(sum(tied), wanted) / math.comb(len(tied), wanted)


def monitors(groups: Sequence[Group]) -> Metrics:
    """Exploration and exploitation of a step's rollouts."""
    return exploration(groups) | exploitation(groups)


def _judged(group: Group) -> list[Trajectory]:
    return [t for t in group.trajectories if math.isfinite(t.rewards.get("correct", math.nan))]


def _solution(trajectory: Trajectory) -> str:
    return " ".join(trajectory.text.split()).casefold()
