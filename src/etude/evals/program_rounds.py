"""How episodes in rounds of programs went: how many rounds they took, and how well the policy knew when to go on.

What each round was worth is a matter of `etude.evals.revision`, which reads the verdicts of the same episodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from etude.tasks.base import RIGHT
from etude.tasks.program_rounds import WENT_ON
from etude.tasks.revisions import VERDICTS
from etude.types import Metrics, Trajectory, mean


def round_metrics(trajectories: Sequence[Trajectory]) -> Metrics:
    """Empty where there are no judged episodes in rounds.

    `rounds`: programs an episode, on average; `rounds@k`: share of the episodes that ran k of them. Of the rounds after which the policy had a say, against the verdict
    on the answer that the round left: `go_on_precision`, the share of wrong ones among those that it went on after; `go_on_recall`, the share of the wrong ones that it
    went on after; `false_alarms`, the share of the right ones that it went on after. Each is left out where there are no such rounds.
    """
    played = [t for t in trajectories if WENT_ON in t.tags]
    if not played:
        return {}
    counts = Counter(len(t.tags[WENT_ON]) for t in played)
    most = max(len(t.tags[VERDICTS]) for t in played)
    metrics: Metrics = {"rounds": mean([float(len(t.tags[WENT_ON])) for t in played])}
    metrics |= {f"rounds@{k}": counts[k] / len(played) for k in range(most + 1)}
    said = [(verdict >= RIGHT, bool(went_on)) for t in played for verdict, went_on in t.tags[WENT_ON] if went_on is not None]
    rates = {
        "go_on_precision": [not right for right, on in said if on],
        "go_on_recall": [on for right, on in said if not right],
        "false_alarms": [on for right, on in said if right],
    }
    return metrics | {name: mean([float(value) for value in values]) for name, values in rates.items() if values}
