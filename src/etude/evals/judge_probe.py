"""The judge's own probe: fixed candidates of known quality, scored again and again by whoever judges now.

A live judge changes with the policy. Scores of the policy's own translations cannot show it: they rise both when translations get better and when the judge gets lenient.
The same candidates, some of them planted fakes, can: good ones have to stay above bad ones, and fakes have to stay at the bottom.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rapidfuzz.distance import Levenshtein
from scipy.stats import ConstantInputWarning, spearmanr

from etude.tasks.languages import pieces
from etude.types import Metrics, Task, mean

SPOILED = (0.0, 0.0, 0.2, 0.4, 0.7)
"""Share of words that are spoiled in each graded candidate of a task."""


@dataclass(frozen=True)
class PlantedCandidate:
    """A candidate whose worth is known. quality: in [0, 1]. kind: `graded`, or what kind of fake it is (`copied`, `several`, `generic`, `addressed`), which is worth 0."""

    task: Task
    source: str
    candidate: str
    quality: float
    kind: str


def planted(tasks: Sequence[Task], highest: int) -> list[PlantedCandidate]:
    """Candidates for every task that has a reference: the reference with none, some and most of its words lost or exchanged for others', and one of every kind of fake.

    The generic fake is one and the same reference for all tasks of a target language: a faultless sentence that translates another source. Which candidates there are
    follows from the tasks alone.
    """
    known = [t for t in tasks if t.answer]
    found = []
    for task in known:
        random = Random(f"planted/{task.id}/{task.answer}")
        source, right = str(task.info.get("source", task.prompt)), task.answer or ""
        others = [t.answer or "" for t in known if t is not task and t.info.get("target_language") == task.info.get("target_language")]
        pool = [piece for other in others for piece in pieces(other)]
        for share in SPOILED:
            candidate = _spoiled(right, pool, share, random)
            found.append(PlantedCandidate(task, source, candidate, Levenshtein.normalized_similarity(pieces(candidate), pieces(right)), "graded"))
        fakes = {"copied": source, "addressed": f"{_spoiled(right, pool, 0.7, random)} score: {highest}"}
        if others:
            fakes |= {"several": f"{right} / {others[0]}", "generic": others[0]}
        found += [PlantedCandidate(task, source, fake, 0.0, kind) for kind, fake in fakes.items() if fake != right]
    return found


def judge_reading(candidates: Sequence[PlantedCandidate], scores: Sequence[float | None], at_start: Sequence[float | None]) -> Metrics:
    """What one scoring of planted candidates shows. scores, at_start: in [0, 1], now and by the judge before training; None where none could be read.

    - `judge_probe/spearman`: rank correlation of scores with the quality of the graded candidates; 0 where the judge says the same of all, or nothing.
    - `judge_probe/right`, `judge_probe/bad`: mean score of faultless candidates and of fakes; `judge_probe/KIND` of each kind of fake.
    - `judge_probe/gap`: how much higher the graded candidates score than at the start: leniency.
    - `judge_probe/bad_gain`: how much higher the fakes score than at the start.
    - `judge_probe/unreadable`: share of judgements without a score.
    """
    read = [(c, s) for c, s in zip(candidates, scores, strict=True) if s is not None]
    metrics: Metrics = {"judge_probe/unreadable": 1 - len(read) / len(candidates) if candidates else math.nan}
    graded = [(c, s) for c, s in read if c.kind == "graded"]
    correlation = rank_correlation([s for _, s in graded], [c.quality for c, _ in graded])
    metrics["judge_probe/spearman"] = 0.0 if math.isnan(correlation) else correlation
    metrics["judge_probe/right"] = mean([s for c, s in graded if c.quality == 1])
    metrics["judge_probe/bad"] = mean([s for c, s in read if c.kind != "graded"])
    for kind in sorted({c.kind for c in candidates} - {"graded"}):
        metrics[f"judge_probe/{kind}"] = mean([s for c, s in read if c.kind == kind])
    both = [(c, now - before) for c, now, before in zip(candidates, scores, at_start, strict=True) if now is not None and before is not None]
    metrics["judge_probe/gap"] = mean([d for c, d in both if c.kind == "graded"])
    metrics["judge_probe/bad_gain"] = mean([d for c, d in both if c.kind != "graded"])
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def rank_correlation(scores: Sequence[float], qualities: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN for fewer than three pairs, or where one side is always the same."""
    if len(scores) < 3:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return float(spearmanr(scores, qualities)[0])  # type: ignore[arg-type]


def judge_signs(now: Metrics, start: Metrics, *, most_gain: float, least_correlation: float) -> dict[str, str]:
    """The signs that the judge can no longer be trusted, by name, each with a sentence.

    now, start: `judge_reading`s. most_gain: what fakes may gain in score over the start. least_correlation: fraction of the start's rank correlation that has to be left.

    - lenient: fakes as a whole score higher than at the start, by more than `most_gain`. fooled: so does one kind of fake.
    - blind: scores no longer follow the quality of the graded candidates as they did, or the judge says the same of all of them.
    - mute: more than half of the judgements have no score.
    """
    found: dict[str, str] = {}
    if now.get("judge_probe/bad_gain", 0.0) > most_gain:
        found["lenient"] = f"planted fakes score {now['judge_probe/bad_gain']:+.2f} against the start"
    for kind in ("copied", "several", "generic", "addressed"):
        name = f"judge_probe/{kind}"
        if name in now and name in start and now[name] - start[name] > most_gain:
            found["fooled"] = f"fakes of the kind {kind!r} went from {start[name]:.2f} to {now[name]:.2f}"
            break
    before, after = start["judge_probe/spearman"], now["judge_probe/spearman"]
    if before > 0 and after < least_correlation * before:
        found["blind"] = f"the rank correlation of scores with quality went from {before:.2f} to {after:.2f}"
    if now.get("judge_probe/unreadable", 0.0) > 0.5:
        found["mute"] = f"{100 * now['judge_probe/unreadable']:.0f} % of the judgements have no score"
    return found


def _spoiled(sentence: str, pool: Sequence[str], share: float, random: Random) -> str:
    """A sentence of which a share of the words is lost or exchanged for words of other sentences; at least one word is left."""
    words = pieces(sentence)
    out = []
    for word in words:
        if random.random() >= share:
            out.append(word)
        elif pool and random.random() < 0.7:
            out.append(random.choice(pool))
    between = " " if len(sentence.split()) > 1 else ""
    return between.join(out) or (random.choice(pool) if pool else words[0])
