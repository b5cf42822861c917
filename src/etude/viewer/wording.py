"""A run in words: the headline, and what deserves a look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from etude.summary import Exported
from etude.viewer.changes import Change, change_of, difference_text, measured
from etude.viewer.numbers import duration, is_share, number, percent, title_of, value_text
from etude.viewer.record import RunRecord
from etude.viewer.samples import readable
from etude.watch import History, collapse_text

MOST_COLLAPSES = 5

ENDINGS = {
    "interrupted": ", before it was interrupted",
    "failed": ", before it stopped with an error",
    "collapsed": ", before a collapse ended it",
    "unfinished": ", so far",
}


def _span(record: RunRecord) -> str:
    """'in 100 steps, 1m 52s', or how far it came: 'in 63 of 100 steps, 58s'."""
    done, planned = record.last_step, record.planned_steps
    short = record.status != "finished" and planned is not None and done < planned
    steps = f"{done:,} of {planned:,} steps" if short else f"{done:,} step{'' if done == 1 else 's'}"
    return f"in {steps}" + (f", {duration(record.seconds)}" if record.seconds is not None else "")


def headline(record: RunRecord) -> str:
    """The run in one sentence, as favourable as the numbers are and no more."""
    ending = ENDINGS.get(record.status, "")
    span = _span(record) + ending
    if not record.steps:
        return f"{record.method} on {record.tasks}: nothing is recorded yet"
    if record.primary is None:
        worked = "searched" if record.search else f"trained {record.model}"
        return f"{record.method} {worked} on {record.tasks} {span}; nothing was measured on held-out tasks"
    what = f"held-out {title_of(record.primary)}{record.subject}"
    change = change_of(record, record.primary)
    if change is None:
        step, value = (column[0] for column in record.series(record.primary))
        return f"{_capital(what)} was {_rounded(record.primary, value)} at step {step}; {record.method} has not been measured since ({span})"
    before, after = (_rounded(change.name, v[0]) for v in (change.before, change.after))
    if change.verdict == "same":
        return f"{record.method} left {what} about where it was: {before} before, {after} after, {span}"
    if change.verdict == "up" or (change.verdict == "unknown" and change.difference > 0):
        return f"{record.method} raised {what} from {before} to {after} {span}"
    if change.difference == 0:
        return f"{record.method} left {what} at {before} {span}"
    return f"{_capital(what)} fell from {before} to {after} under {record.method} {span}"


def remarks(record: RunRecord) -> list[str]:
    """What deserves a look before the numbers are believed or used; empty when nothing stands out."""
    found = [*_about_ending(record), *_about_probe(record), *_about_held_out(record), *_about_training(record)]
    if record.broken_lines:
        found.append(f"{record.broken_lines} line{'s' if record.broken_lines > 1 else ''} of the run's files could not be read and are left out here.")
    return found


def weights_text(exported: Exported, score_key: str) -> str:
    """Which weights a run left in `model/`: 'of step 15, the best of 5 evaluations: pass@1 79.0 %; step 20, the last, has 78.0 %'."""
    step, last = exported["step"], exported["last_step"]

    def score(value: float | None) -> str:
        return "was not measured" if value is None else f"has {title_of(score_key)} {value_text(score_key, value)}"

    if step == last:
        return f"of step {step}, the last" + ("" if exported["score"] is None else f"; it {score(exported['score'])}")
    before = ", before training" if step == 0 else ""
    return f"of step {step}{before}, the best of {exported['evaluations']} evaluations; it {score(exported['score'])}; step {last}, the last, {score(exported['last_score'])}"


def _about_ending(record: RunRecord) -> list[str]:
    reason = readable(record.result.get("reason"))
    because = f": {reason}" if reason else ""
    if record.status == "interrupted":
        return [f"The run was interrupted at step {record.last_step}{because}"]
    if record.status == "failed":
        return [f"The run stopped with an error at step {record.last_step}{because}"]
    if record.status == "unfinished" and record.steps:
        return ["No result was written: the run is still going, or was killed. This page shows what it had recorded."]
    return []


def _about_probe(record: RunRecord) -> list[str]:
    found = [readable(_capital(collapse_text(line))) + "." for line in History(record.probe).collapses()]
    more = len(found) - MOST_COLLAPSES
    return found if more <= 0 else [*found[:MOST_COLLAPSES], f"The probe showed {more} more collapse{'s' if more > 1 else ''}."]


def _about_held_out(record: RunRecord) -> list[str]:
    found = []
    name = record.primary
    change = change_of(record, name) if name else None
    if name is None or change is None:
        return found
    if change.verdict == "same":
        size = f"held-out {title_of(name)} ({difference_text(change)})"
        found.append(f"The change in {size} is within what this evaluation can tell apart; more held-out tasks or samples would narrow it.")
    steps, values = record.series(name)
    best = max(range(len(values)), key=values.__getitem__)
    peak, last = measured(record, name, steps[best]), change.after
    fell = Change(name, steps[best], change.after_step, peak, last)
    if steps[best] != change.after_step and fell.verdict == "down" and best > 0:
        found.append(
            f"Held-out {title_of(name)} was best at step {steps[best]} ({value_text(name, peak[0])}) and fell afterwards to {value_text(name, last[0])}."
        )
    _, reward = record.series("reward/mean")
    if change.verdict == "down" and len(reward) >= 10 and _end(reward) > _start(reward):
        found.append("The training reward rose while the held-out score fell: the reward may be exploited, or the training tasks memorised.")
    k = record.largest_k()
    wide = change_of(record, f"eval/pass@{k}") if k else None
    if wide is not None and wide.verdict == "down" and change.verdict == "up":
        found.append(f"pass@1 rose but pass@{k} fell ({difference_text(wide)}): the model became surer, and solves fewer tasks in {k} tries.")
    return found


def _about_training(record: RunRecord) -> list[str]:
    found = []
    _, signal = record.series("signal/groups_with_spread")
    if len(signal) >= 10 and _end(signal) < 0.1:
        groups = f"only {percent(_end(signal))} of the groups had different rewards inside"
        found.append(f"At the end {groups}: there was little left to learn from. Tasks that are sometimes solved would teach more.")
    _, entropy = record.series("rollout/entropy")
    if len(entropy) >= 10 and _start(entropy) > 0 and _end(entropy) < 0.1 * _start(entropy):
        found.append(f"Entropy fell from {number(_start(entropy))} to {number(_end(entropy))} nats: the model hardly explores any more.")
    _, truncated = record.series("rollout/truncated")
    if len(truncated) >= 10 and _end(truncated) > 0.2:
        found.append(f"{percent(_end(truncated))} of the last rollouts were cut off at the length limit; a larger `max_new_tokens` may help.")
    missing = [step for step, row in record.steps.items() if any(name.startswith("loss/") and not math.isfinite(value) for name, value in row.items())]
    if missing:
        some = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
        found.append(f"A loss or gradient was not a finite number at {len(missing)} step{'s' if len(missing) > 1 else ''} ({some}).")
    return found


def _rounded(name: str, value: float) -> str:
    """Whole percentages: a headline is read at a glance, the tables have the decimals."""
    return percent(value) if is_share(name) else number(value)


def _start(values: Sequence[float]) -> float:
    """Mean over the first tenth."""
    return fmean(values[: max(1, len(values) // 10)])


def _end(values: Sequence[float]) -> float:
    """Mean over the last tenth."""
    return fmean(values[-max(1, len(values) // 10) :])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
