"""How far a judge's values of actions go with what became of them, and those of partial solutions with whether their newest step is right."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import correlation

from etude.types import Metrics


def agreement(rows: Sequence[tuple[str, float, float]]) -> Metrics:
    """Correlation of values with outcomes, over all actions and by kind.

    rows: an action's kind, its value, and its outcome (of the best attempt that went through it). Keys are `eval/agreement` and `eval/agreement_KIND`; a correlation that is
    not defined, since all values or all outcomes are equal, is left out.
    """
    kinds = sorted({kind for kind, _, _ in rows})
    groups = {"eval/agreement": list(rows), **{f"eval/agreement_{kind}": [row for row in rows if row[0] == kind] for kind in kinds}}
    found: Metrics = {}
    for name, group in groups.items():
        values, outcomes = [value for _, value, _ in group], [outcome for _, _, outcome in group]
        if len(set(values)) > 1 and len(set(outcomes)) > 1 and math.isfinite(r := correlation(values, outcomes)):
            found[name] = r
    return found


def told_apart(rows: Sequence[tuple[int, bool, float]]) -> float:
    """Area under the curve of right against wrong steps at equal depth: how often a right step has the higher value, equal values counting half.

    rows: a step's depth, whether it is right, and the value behind it. 0.5 is chance, which includes a value that says nothing but how far a solution has come. NaN where
    no depth has steps of both kinds.
    """
    at_depth: defaultdict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for depth, right, value in rows:
        at_depth[depth][right].append(value)
    pairs = [(good > bad) + 0.5 * (good == bad) for wrong, right in at_depth.values() for good in right for bad in wrong]
    return sum(pairs) / len(pairs) if pairs else math.nan
