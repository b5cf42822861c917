"""Whether a model improves on what its own feedback lets through, starting from one that was taught to answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from etude.errors import InputError
from etude.evals.measures import Final, First, Measure, Spent
from etude.experiments.imitate_first import imitate_first


def self_evolution(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    It has to evaluate once a round. `direct_start`, `direct_taught`, `direct`: held-out pass@1 of the model that was imitated into being, after the first round (which
    teaches the skills), and at the end; `gain`: the last less the second. `refined`: accuracy after refinement, at the end. `critic`, `critic_last`: balanced accuracy of
    feedback on held-out answers after the first round and at the end, in which right or wrong answers count as misjudged where there are none. `first`, `unfiltered`,
    `kept`: by the labels, accuracy of the rounds' first answers, of the final ones, and of those that the filter let through, as means over rounds, and with `_once` in the
    first of them. `tokens`: generated. What has no value is left out.
    """
    record = imitate_first(seed, settings, budget)
    found: dict[str, float] = {}
    measures: dict[str, Measure] = {
        "direct_start": First("eval/pass@1"),
        "direct": Final("eval/pass@1"),
        "refined": Final("eval/correct@2"),
        "tokens": Spent("tokens"),
    }
    for name, measure in measures.items():
        with suppress(InputError):
            found[name] = measure(record)
    taught = [row for row in record.rows if row["step"] > 0 and row.get("eval/pass@1") is not None]
    critics = [
        (float(row.get("eval/feedback_recall") or 0) + float(row.get("eval/feedback_specificity") or 0)) / 2
        for row in taught
        if "eval/feedback_accepted" in row
    ]
    if critics:
        found["critic"], found["critic_last"] = critics[0], critics[-1]
    if taught:
        found["direct_taught"] = taught[0]["eval/pass@1"]
        found["gain"] = found["direct"] - found["direct_taught"]
    for name, metric in {"first": "first", "unfiltered": "unfiltered", "kept": "filtered"}.items():
        with suppress(InputError):
            values = record.series(f"evolve/accuracy_{metric}")[1]
            found[name], found[f"{name}_once"] = sum(values) / len(values), values[0]
    return {name: value for name, value in found.items() if isfinite(value)}
