"""Translations that a model scores itself, after it was first taught by imitation to judge: the embedded model can translate, and has never seen a judgement.

What it imitates says how good a judge it starts as: honest digits with some noise, or (`shuffled=true`) digits that belong to other candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from etude.errors import InputError
from etude.evals.measures import AtBudget, Average, Final, First
from etude.experiments.imitate_first import imitate_first

LESSONS = "translation-judging:judging=0.85,noise=0.05,slips=0.18,qualities=0,held_out_tasks=100"
"""What claims' starts imitate: judgements, a few of them noisy, and translations with the slips that the embedded model makes, of sentences of three words."""
START: Mapping[str, Any] = {
    "model": "tiny",
    "tasks": "translation:qualities=0,held_out_tasks=100",
    "warm_tasks": LESSONS,
    "warm_steps": 260,
    "warm_tasks_per_step": 32,
    "warm_lr": 2e-3,
    "warm_schedule": "linear",
    "eval_tasks": 96,
    "eval_samples": 4,
    "probe": "never",
}
"""What claims have in common whose policy was taught to judge and then scores its own translations."""
LATE = 0.25
"""Share of the run that counts as its end."""


def judged_translations(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`, after `warm_steps` steps of imitation of `settings["warm_tasks"]`.

    `pass_rate_first`, `pass_rate`: held-out translations with exactly the right meaning, before and at the end. Of methods that judge: `score_first`, `score`: mean
    score of the judged attempts in the first step and over the last quarter; `spearman_first`, `spearman`: rank correlation of the judge's scores with the quality of
    planted candidates; `fakes_gain`: how much higher planted fakes score at the end; `tied`: share of pairs with equal scores in the first step; `in_form_first`. Of methods
    that score without a reference: `told_apart_first`, `told_apart`: how often a right attempt at a task had a higher score than a wrong one, in the first and last round.
    All other settings are the run's.
    """
    record = imitate_first(seed, settings, budget)
    found = {"pass_rate_first": First("eval/pass@1")(record), "pass_rate": AtBudget("eval/pass@1")(record)}
    judged = {
        "score_first": First("judge/score"),
        "score": Average("judge/score", last=LATE),
        "spearman_first": First("judge_probe/spearman"),
        "spearman": Final("judge_probe/spearman"),
        "fakes_gain": Final("judge_probe/bad_gain"),
        "tied": First("judge/tied"),
        "in_form_first": First("surface/in_form"),
        "told_apart_first": First("score/told_apart"),
        "told_apart": Final("score/told_apart"),
    }
    for name, measure in judged.items():
        # Other methods judge nothing.
        with suppress(InputError):
            found[name] = measure(record)
    return found
