"""Rate limits as a server tells them in its headers, waited for instead of run into.

A server that limits how much it is asked says with every answer how many requests and tokens are left and when they are filled up again (`x-ratelimit-remaining-requests`,
`x-ratelimit-reset-requests`, and the same for tokens); one that has had enough answers 429 with `retry-after`. The client that repeats a failed request waits by itself. What
is here makes all other threads wait too.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Condition

from etude.errors import EtudeError

LONGEST_WAIT = 120.0
"""Seconds that are waited for at most, as long as the client itself waits for a `retry-after`. A limit that lasts longer, such as one by the day, is an error."""

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"\d+(?:\.\d+)?(?:ms|us|µs|ns|d|h|m|s)"
_DURATION = re.compile(rf"(?:{_PART})+")
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")


def seconds_of(text: str) -> float | None:
    """A duration in seconds: `6m0s`, `20ms`, or a plain number of seconds. None for anything else."""
    if _DURATION.fullmatch(text.strip()):
        return sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text))
    with suppress(ValueError):
        seconds = float(text)
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait for: `retry-after-ms`, or `retry-after` as a number or a date. None where it asks for nothing that can be read."""
    milliseconds = seconds_of(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    if (seconds := seconds_of(text)) is not None:
        return seconds
    with suppress(ValueError, TypeError):
        when = parsedate_to_datetime(text)
        return max(0.0, (when - datetime.now(when.tzinfo or UTC)).total_seconds())
    return None


@dataclass(slots=True)
class _Window:
    """What is left until a moment on the clock, when it is filled up again."""

    left: float = math.inf
    until: float = -math.inf

    def pause(self, cost: float, now: float) -> float:
        return self.until - now if self.left < cost and now < self.until else 0.0


class RateLimits:
    """What one server has left for us. Threads call `admit` before a request, and whoever sees a response hands its headers to `heard`.

    clock: seconds that only grow; wait: how to wait for a condition for some seconds. Both are for tests.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wait: Callable[[Condition, float], object] = Condition.wait) -> None:
        self._clock, self._wait = clock, wait
        self._changed = Condition()
        self._windows = {"requests": _Window(), "tokens": _Window()}
        self._held_until = -math.inf

    def admit(self, tokens: float) -> None:
        """Wait until a request that may cost so many tokens is within the limits that are known, and take it off what is left.

        Raises EtudeError where that would take longer than LONGEST_WAIT.
        """
        costs = {"requests": 1.0, "tokens": tokens}
        with self._changed:
            while (pause := self._pause(costs)) > 0:
                if pause > LONGEST_WAIT:
                    raise EtudeError(
                        f"the server's rate limit lasts another {pause:.0f} seconds, longer than {LONGEST_WAIT:.0f}; ask again later, or less at once"
                    )
                self._wait(self._changed, pause)
            for name, cost in costs.items():
                self._windows[name].left -= cost

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """Take in what a response says: of every status, since a refusal tells most. Headers are looked up in lower case."""
        with self._changed:
            now = self._clock()
            for name, window in self._windows.items():
                left, reset = (seconds_of(headers.get(f"x-ratelimit-{what}-{name}", "")) for what in ("remaining", "reset"))
                if left is not None and reset is not None:
                    window.left, window.until = left, now + reset
            pause = retry_after(headers) if status in (429, 503) else None
            if pause is not None:
                self._held_until = max(self._held_until, now + pause)
            self._changed.notify_all()

    def _pause(self, costs: Mapping[str, float]) -> float:
        now = self._clock()
        return max(self._held_until - now, *(self._windows[name].pause(cost, now) for name, cost in costs.items()))
