"""How far a judge's values of actions go with what became of them."""

from __future__ import annotations

import math
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
