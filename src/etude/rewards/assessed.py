"""Translations that were scored by a judge: what is known of each, what it earns, and what a step's scores were like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import combinations
from statistics import pstdev

from etude.rewards.judges import Judgement
from etude.rewards.zero_rules import ZERO_RULES, ZeroRule
from etude.tasks.translations import source_of
from etude.types import Group, Message, Metrics, mean, trajectories_of


def total_reward(
    score: float | None, external: float | None, *, in_form: bool, bad_form: float, self_weight: float = 1.0, external_weight: float = 1.0
) -> float:
    """A response's reward: `bad_form` outside the asked form, else the weighted sum of the judge's score and, where there is one, of a metric from outside.

    score: in [0, 1]; None where nothing could be read, which makes the reward NaN, that is, nothing to be compared. The paper's combinations are the plain score and the
    sum of both with equal weights.
    """
    if not in_form:
        return bad_form
    own = math.nan if score is None else self_weight * score
    return own + (external_weight * external if external is not None else 0.0)


@dataclass
class Assessed:
    """What has become of one response on its way to a reward. translation: None outside the asked form; broken: the zero rules that it breaks, switched on or not."""

    translation: str | None
    quoted: bool = False
    broken: tuple[ZeroRule, ...] = ()
    question: Message | None = None
    asked: list[Future[Judgement]] = field(default_factory=list)
    score: float | None = None


def assessment_metrics(groups: Sequence[Group]) -> Metrics:
    """What the assessments of a step were like, over attempts in the asked form unless said otherwise; what is undefined is left out.

    - `judge/score`, `judge/score_std`: mean and deviation of the scores that were read.
    - `judge/tied`: share of the pairs of judged attempts at one task that score the same. `judge/unreadable`: share of the judged without a score.
    - `surface/in_form`: share of all attempts. `surface/RULE`: share that breaks a zero rule, switched on or not. `surface/quoted`: share in needless quotation marks.
    - `surface/length`: characters of a translation over those of its source.
    """
    attempts = trajectories_of(groups)
    in_form = [(t, a) for t in attempts if (a := t.tags["assessed"]).translation is not None]
    judged = [a for _, a in in_form if a.asked]
    scores = [a.score for a in judged if a.score is not None]
    read = [[a.score for t in g.trajectories if (a := t.tags["assessed"]).score is not None] for g in groups]
    pairs = [float(x == y) for row in read for x, y in combinations(row, 2)]
    metrics = {
        "judge/score": mean(scores),
        "judge/score_std": pstdev(scores) if scores else math.nan,
        "judge/tied": mean(pairs),
        "judge/unreadable": mean([float(a.score is None) for a in judged]),
        "surface/in_form": mean([float(t.tags["assessed"].translation is not None) for t in attempts]),
        "surface/quoted": mean([float(a.quoted) for _, a in in_form]),
        "surface/length": mean([len(a.translation) / max(1, len(source_of(t.task))) for t, a in in_form]),
        **{f"surface/{rule}": mean([float(rule in a.broken) for _, a in in_form]) for rule in ZERO_RULES},
    }
    return {name: value for name, value in metrics.items() if not math.isnan(value)}
