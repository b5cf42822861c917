"""What the model wrote: the same held-out tasks before and after, and a spread of its attempts during training."""

from __future__ import annotations

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

MOST_CHARACTERS = 2000
"""Longer texts are cut in the report; the files in the run folder keep them whole."""

# Control characters have no glyph and some are not allowed in a page: they are shown as their pictures (U+2400 block).
_VISIBLE = {**{c: 0x2400 + c for c in range(32) if c not in (9, 10)}, 127: 0x2421}


@dataclass(frozen=True)
class Answer:
    """One attempt: marked-up text and how right it was (`right`, `partly`, `wrong`, or `unjudged`)."""

    text: Markup
    mark: str
    step: int


@dataclass(frozen=True)
class Pair:
    """One held-out task with its attempt before and after training; `change` is `gained`, `kept`, `lost`, `missed` or `other`."""

    task: str
    prompt: str
    answer: str
    before: Answer
    after: Answer
    change: str


@dataclass(frozen=True)
class Attempt:
    """One sampled training trajectory."""

    step: int
    task: str
    prompt: str
    text: str
    answer: str
    mark: str
    reward: float | None
    rewards: list[tuple[str, float]]
    length: int | None
    stop_reason: str


def mark_of(correct: Any) -> str:
    """How right an attempt was, from a verdict in [0, 1], a truth value or None."""
    if not isinstance(correct, (bool, int, float)) or correct != correct:
        return "unjudged"
    if correct >= 0.999:
        return "right"
    return "partly" if correct > 0.001 else "wrong"


def pairs(samples: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """Attempts at the same task from the first and the last step that has samples, in the order the tasks were first seen.

    Several attempts per task and step are paired in order. Empty when only one step has samples.
    """
    by_step: dict[int, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if isinstance(sample.get("step"), int):
            by_step[sample["step"]][str(sample.get("task_id", ""))].append(sample)
    if len(by_step) < 2:
        return []
    first, last = min(by_step), max(by_step)
    found = []
    for task, earlier in by_step[first].items():
        for old, new in zip(earlier, by_step[last].get(task, []), strict=False):
            before, after = marked_difference(readable(old.get("text")), readable(new.get("text")))
            was, is_ = mark_of(old.get("correct")), mark_of(new.get("correct"))
            change = {("wrong", "right"): "gained", ("right", "right"): "kept", ("right", "wrong"): "lost", ("wrong", "wrong"): "missed"}.get(
                (was, is_), "other"
            )
            found.append(Pair(task, readable(old.get("prompt")), readable(old.get("answer")), Answer(before, was, first), Answer(after, is_, last), change))
    return found


def attempts(trajectories: Sequence[Mapping[str, Any]], *, characters: int = 120_000, steps: int = 25) -> list[Attempt]:
    """Training trajectories of steps that are spread evenly over the run, as many as fit a page: about `characters` of text, at most `steps` steps."""
    by_step: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for trajectory in trajectories:
        if isinstance(trajectory.get("step"), int):
            by_step[trajectory["step"]].append(trajectory)
    numbers = sorted(by_step)
    if len(numbers) > steps:
        numbers = sorted({numbers[round(i * (len(numbers) - 1) / (steps - 1))] for i in range(steps)})
    share = characters // max(1, len(numbers))
    found = []
    for number in numbers:
        left = share
        for trajectory in by_step[number]:
            attempt = _attempt(number, trajectory)
            left -= len(attempt.text) + len(attempt.prompt)
            if left < 0 and found and found[-1].step == number:
                break
            found.append(attempt)
    return found


def _attempt(step: int, trajectory: Mapping[str, Any]) -> Attempt:
    rewards = trajectory.get("rewards")
    parts = [(str(k), float(v)) for k, v in rewards.items() if isinstance(v, (int, float))] if isinstance(rewards, dict) else []
    reward, length = trajectory.get("reward"), trajectory.get("length")
    return Attempt(
        step=step,
        task=str(trajectory.get("task_id", "")),
        prompt=readable(trajectory.get("prompt")),
        text=readable(trajectory.get("text")),
        answer=readable(trajectory.get("answer")),
        mark=mark_of(trajectory.get("correct")),
        reward=float(reward) if isinstance(reward, (int, float)) else None,
        rewards=parts,
        length=length if isinstance(length, int) else None,
        stop_reason=str(trajectory.get("stop_reason") or ""),
    )


def readable(value: Any, most: int = MOST_CHARACTERS) -> str:
    """Any text value as text a page can show: cut after `most` characters, control characters visible. None is empty; what is not text is written as JSON."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    extra = len(text) - most
    if extra > 0:
        text = f"{text[:most]}… ({extra:,} more characters)"
    # A surrogate without its partner cannot be written as UTF-8.
    return text.translate(_VISIBLE).encode("utf-8", errors="replace").decode("utf-8")


def marked_difference(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts, escaped, with the words marked that only one of them has. Texts with little in common stay unmarked: marks would be noise."""
    old, new = _words(before), _words(after)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    if len(old) * len(new) > 400_000 or before == after or matcher.ratio() < 0.4:
        return escape(before), escape(after)
    left, right = [], []
    for kind, a, b, c, d in matcher.get_opcodes():
        gone, come = escape("".join(old[a:b])), escape("".join(new[c:d]))
        left.append(gone if kind == "equal" or not gone else Markup('<mark class="gone">{}</mark>').format(gone))
        right.append(come if kind == "equal" or not come else Markup('<mark class="come">{}</mark>').format(come))
    return Markup("").join(left), Markup("").join(right)


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", text)
