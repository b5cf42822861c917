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
    """Area under the curve of right against wrong ones of the same kind: how often the right one has the higher value, equal values counting half.

    rows: the kind (a step's depth, an attempt's task), whether it is right, and its value. 0.5 is chance, which includes a value that says nothing but of which kind
    something is. NaN where no kind has both right and wrong ones.
    """
    of_kind: defaultdict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for kind, right, value in rows:
        of_kind[kind][right].append(value)
    pairs = [(good > bad) + 0.5 * (good == bad) for wrong, right in of_kind.values() for good in right for bad in wrong]
    return sum(pairs) / len(pairs) if pairs else math.nan
