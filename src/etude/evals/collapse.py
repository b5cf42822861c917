"""Has a run collapsed? A pure function of what the probe saw so far.

A method that learns without labels maximises a stand-in for the truth: agreement, its own judgement, its own certainty. All of these can be had without being
right. The signs below are the ways in which that is seen from outside, on tasks whose answers are known and that are never trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from etude.config import CollapseLimits
from etude.types import Metrics

FEWEST_TASKS = 8
"""With fewer tasks than this, chance cannot be told from change, and accuracy is not judged."""
RISEN = 2.0
"""Standard errors above the start from which a policy counts as better than it was: its form (entropy, length) may then be what it likes."""
MOSTLY_RIGHT = 0.8
"""A policy that is right this often may be certain."""
VERDICT_GAP = 0.25
"""How far the share of positive verdicts has to be from the share of right answers before a judge that always says the same counts as collapsed."""
RANDOM_ENTROPY = 0.5
"""Entropy, nats per token, below which no rise counts as exploding."""


@dataclass(frozen=True)
class Reading:
    """What the probe saw at one step.

    accuracy, proxy: verdict by the labels, and reward as training gives it, of each task: means over its attempts, in the tasks' fixed order, NaN where nothing
    could be judged. answers: the most common final answers and their shares of all attempts, largest first. metrics: keyed `probe/...`.
    """

    step: int
    metrics: Metrics
    accuracy: tuple[float, ...]
    proxy: tuple[float, ...]
    answers: tuple[tuple[str, float], ...] = field(default=())

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for one line of `probe.jsonl`."""
        answers = [list(entry) for entry in self.answers]
        return {"step": self.step, "metrics": self.metrics, "accuracy": list(self.accuracy), "proxy": list(self.proxy), "answers": answers}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Reading:
        """From what `to_plain` gave and JSON kept, in which None stands for NaN; other entries are left out."""
        return cls(
            step=int(values["step"]),
            metrics={name: _number(value) for name, value in values["metrics"].items()},
            accuracy=tuple(map(_number, values["accuracy"])),
            proxy=tuple(map(_number, values["proxy"])),
            answers=tuple((str(answer), float(share)) for answer, share in values["answers"]),
        )


def paired_change(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Mean over tasks of `after - before` and its standard error, from the tasks that have both values.

    The same tasks are measured with the same random numbers each time, so what differs between tasks drops out. The error is infinite for fewer than
    FEWEST_TASKS tasks, and both are NaN and infinite for none.
    """
    differences = [b - a for a, b in zip(before, after, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(differences) < FEWEST_TASKS:
        return (fmean(differences) if differences else math.nan), math.inf
    return fmean(differences), stdev(differences) / math.sqrt(len(differences))


def most_accurate(history: Sequence[Reading]) -> Reading | None:
    """The reading with the highest mean accuracy, the earliest of equals; None when none was judged."""
    judged = [r for r in history if math.isfinite(_mean(r.accuracy))]
    return max(judged, key=lambda r: (_mean(r.accuracy), -r.step), default=None)


def signs_of_collapse(history: Sequence[Reading], limits: CollapseLimits) -> dict[str, str]:
    """The signs that the last reading shows, by name, each with a sentence; empty for a healthy run, and for fewer than two readings.

    history: all readings of the run so far, oldest first; the first one, before training, is what "too long" and "too random" are measured by.

    - exploited: accuracy fell below its best by more than its noise, and the reward that is trained on did not fall with it.
    - lost: accuracy fell to a fraction of its best, whatever the reward did.
    - one_answer: different tasks get the same answer.
    - one_verdict: the judgement is the same for (nearly) every attempt, and the labels say otherwise.
    - certain: entropy is nearly zero, and many answers are wrong.
    - random: entropy is a multiple of what it was.
    - long, short: so is length, or it is a small fraction.

    The last four say nothing of a policy that is more accurate than at the start, and signs that compare with accuracy nothing where it is unknown.
    """
    if len(history) < 2:
        return {}
    found: dict[str, str] = {}
    for name, look in _SIGNS.items():
        said = look(history, limits)
        if said is not None:
            found[name] = said
    return found


def _exploited(history: Sequence[Reading], limits: CollapseLimits) -> str | None:
    best, now = most_accurate(history[:-1]), history[-1]
    if best is None or not _fell(best, now, limits):
        return None
    proxy, proxy_error = paired_change(best.proxy, now.proxy)
    # A reward that falls as the truth does is doing its work: the run has another problem.
    if math.isfinite(proxy) and math.isfinite(proxy_error) and proxy < -limits.collapse_noise * proxy_error:
        return None
    return f"{_fall(best, now)}, while the reward that is trained on went from {_mean(best.proxy):.3g} to {_mean(now.proxy):.3g}"


def _lost(history: Sequence[Reading], limits: CollapseLimits) -> str | None:
    best, now = most_accurate(history[:-1]), history[-1]
    if best is None or not _fell(best, now, limits) or _mean(now.accuracy) >= limits.collapse_lost * _mean(best.accuracy):
        return None
    return f"{_percent(_mean(now.accuracy))} is left of an accuracy of {_percent(_mean(best.accuracy))} at step {best.step}"


def _one_answer(history: Sequence[Reading], limits: CollapseLimits) -> str | None:
    start, now = history[0], history[-1]
    share = _metric(now, "probe/top_answer")
    # Where answers are few (yes or no), or the model had a favourite from the start, repetition alone means nothing.
    usual = max(_metric(now, "probe/top_reference", 0.0), _metric(start, "probe/top_answer", 0.0))
    if not now.answers or not share > usual + limits.collapse_answers * (1 - usual):
        return None
    return f"{_percent(share)} of all attempts, at different tasks, give the answer {now.answers[0][0]!r}; {_percent(usual)} was usual"


def _one_verdict(history: Sequence[Reading], limits: CollapseLimits) -> str | None:
    before, share = _metric(history[0], "probe/positive"), _metric(history[-1], "probe/positive")
    edge, right = limits.collapse_verdicts, _mean(history[-1].accuracy)
    if (edge < share < 1 - edge) or not edge < before < 1 - edge or not abs(share - right) > VERDICT_GAP:
        return None
    return f"the judgement is positive for {_percent(share)} of the attempts, and {_percent(right)} are right; before training it was for {_percent(before)}"


def _certain(history: Sequence[Reading], limits: CollapseLimits) -> str | None:
    start, now = history[0], history[-1]
    before, entropy = _metric(start, "probe/entropy"), _metric(now, "probe/entropy")
    surer = entropy < limits.collapse_entropy_low and entropy < before
    if not surer or not _mean(now.accuracy) < MOSTLY_RIGHT or _improved(start, now):
        return None
    return f"entropy is {entropy:.2g} nats per token, and only {_percent(_mean(now.accuracy))} of the answers are right: nothing new is tried any more"


def _random(history: Sequence[Reading], limits: CollapseLimits) -> str | None:
    start, now = history[0], history[-1]
    before, entropy = _metric(start, "probe/entropy"), _metric(now, "probe/entropy")
    if not (entropy > limits.collapse_entropy_high * before and entropy > RANDOM_ENTROPY) or _improved(start, now):
        return None
    return f"entropy rose from {before:.2g} to {entropy:.2g} nats per token"


def _long(history: Sequence[Reading], limits: CollapseLimits) -> str | None:
    start, now = history[0], history[-1]
    before, length = _metric(start, "probe/length"), _metric(now, "probe/length")
    if not length > limits.collapse_long * before or _improved(start, now):
        return None
    return f"responses grew from {before:.3g} to {length:.3g} tokens, and accuracy did not"


def _short(history: Sequence[Reading], limits: CollapseLimits) -> str | None:
    start, now = history[0], history[-1]
    before, length = _metric(start, "probe/length"), _metric(now, "probe/length")
    # Brevity that costs no accuracy is an achievement.
    if not length < limits.collapse_short * before or not _mean(now.accuracy) < _mean(start.accuracy) - limits.collapse_fall:
        return None
    return f"responses shrank from {before:.3g} to {length:.3g} tokens, and accuracy fell"


_SIGNS: dict[str, Callable[[Sequence[Reading], CollapseLimits], str | None]] = {
    "exploited": _exploited,
    "lost": _lost,
    "one_answer": _one_answer,
    "one_verdict": _one_verdict,
    "certain": _certain,
    "random": _random,
    "long": _long,
    "short": _short,
}

SIGNS = tuple(_SIGNS)
"""Names of all signs."""


def _fell(before: Reading, now: Reading, limits: CollapseLimits) -> bool:
    change, error = paired_change(before.accuracy, now.accuracy)
    return -change > max(limits.collapse_fall, limits.collapse_noise * error)


def _improved(start: Reading, now: Reading) -> bool:
    change, error = paired_change(start.accuracy, now.accuracy)
    return change > RISEN * error


def _fall(best: Reading, now: Reading) -> str:
    return f"accuracy on the probe fell from {_percent(_mean(best.accuracy))} at step {best.step} to {_percent(_mean(now.accuracy))}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return fmean(known) if known else math.nan


def _metric(reading: Reading, name: str, default: float = math.nan) -> float:
    value = reading.metrics.get(name, default)
    return value if math.isfinite(value) else default


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
