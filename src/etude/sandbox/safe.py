"""The safe interpreter: pydantic-monty, a Python of its own written in Rust, which has no files, processes, network or environment to begin with.

It runs in worker processes, so that a crash of the interpreter costs one call. It speaks a part of Python (docs/sandbox.md says which) and starts in a fraction of a
millisecond. Clock and random numbers are fixed, so that a call gives the same result whenever it is made.
"""

from __future__ import annotations

import datetime
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etude.errors import InputError
from etude.sandbox.base import Limits, Result, Sandbox, Session, Status, cores, cut, explain, refused

GRACE = 1.0
"""Seconds after its limit at which a worker that does not answer is ended."""
CLOCK = datetime.datetime(2025, 1, 1, 12)
"""The time that every call sees."""


class SafeSandbox(Sandbox):
    """A pool of workers of the safe interpreter."""

    name = "safe"

    def __init__(self, limits: Limits, workers: int = 0) -> None:
        self.limits = limits
        self._monty = _package()
        # A session holds a worker for as long as it is open.
        self._pool = self._monty.Monty(max_processes=1024, feed_duration_limit_grace=GRACE, request_timeout=limits.seconds + 2 * GRACE)
        self._pool.__enter__()
        self._threads = ThreadPoolExecutor(workers or cores(), "safe-sandbox")
        self._closed = False

    def run(self, codes: Sequence[str]) -> list[Result]:
        if len(codes) == 1:
            return [self._once(codes[0])]
        return list(self._threads.map(self._once, codes))

    def session(self) -> Session:
        return _SafeSession(self)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._threads.shutdown()
            self._pool.__exit__(None, None, None)

    def _once(self, code: str) -> Result:
        with self.session() as session:
            return session.run(code)

    def checkout(self) -> Any:
        """A worker with the limits set."""
        limits = self.limits
        return self._pool.checkout(
            limits={"max_feed_duration_secs": limits.seconds, "max_memory": limits.memory, "max_recursion_depth": limits.recursion, "max_suspensions": 10_000},
            os_policy={"datetime": CLOCK, "sleep": "zero", "random_start": {"seed": 0}},
            assert_message_annotations=False,
        )

    def feed(self, worker: Any, code: str) -> Result:
        """Run code in a worker."""
        limits, monty = self.limits, self._monty
        printed = _Printed(limits.output)
        started = time.perf_counter()
        value = error = None
        status: Status = "ok"
        try:
            # Values become objects of this process, and a huge integer has no decimal form here either.
            given = worker.feed_run(code, print_callback=printed, os=_no_system)
            value = None if given is None else cut(repr(given), limits.output)
        except monty.MontyCrashedError as crash:
            status = "timeout" if crash.timed_out else "killed"
            error = explain(status, limits)
        except (monty.MontySyntaxError, monty.MontyRuntimeError) as failure:
            status, error = self._failed(failure, code)
        except (ValueError, OverflowError, RecursionError, MemoryError, monty.MontyError) as failure:
            status, error = "error", cut(f"{type(failure).__name__}: {failure}", limits.output)
        if printed.full and status != "killed":
            status, value = "output-limit", None
            error = explain(status, limits)
        return Result(status, printed.text, value, error, time.perf_counter() - started)

    def _failed(self, failure: Any, code: str) -> tuple[Status, str]:
        inner = failure.exception()
        shown = failure.display("type-msg")
        if isinstance(inner, TimeoutError) and str(inner).startswith("feed time limit"):
            return "timeout", explain("timeout", self.limits)
        if isinstance(inner, MemoryError):
            return "memory", explain("memory", self.limits)
        status: Status = "unsupported" if _is_missing(inner) else "error"
        return status, cut(_traceback(failure.traceback(), shown, code), self.limits.output)


class _SafeSession(Session):
    def __init__(self, sandbox: SafeSandbox) -> None:
        self._sandbox = sandbox
        self._checkout: Any = None
        self._worker: Any = None

    def run(self, code: str) -> Result:
        no = refused(code, self._sandbox.limits)
        if no is not None:
            return no
        if self._worker is None:
            self._checkout = self._sandbox.checkout()
            self._worker = self._checkout.__enter__()
        result = self._sandbox.feed(self._worker, code)
        if result.status in ("timeout", "memory", "output-limit", "killed"):
            # A limit stops the interpreter in the middle of an operation: what its heap then holds means nothing.
            self.close()
        return result

    def close(self) -> None:
        if self._worker is not None:
            self._worker = None
            self._checkout.__exit__(None, None, None)


class _Printed:
    """Collects what is printed, up to the limit; beyond it, printing fails, and the call counts as over the limit whatever it makes of that."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.full = False
        self._parts: list[str] = []
        self._length = 0
        self._lock = threading.Lock()

    def __call__(self, _stream: str, text: str) -> None:
        with self._lock:
            room = self.limit - self._length
            self._parts.append(text[:room])
            self._length += len(text[:room])
            if len(text) > room:
                self.full = True
                raise RuntimeError("too much output")

    @property
    def text(self) -> str:
        return "".join(self._parts)


def _no_system(*_arguments: Any, **_named: Any) -> Any:
    raise PermissionError("there are no files, and no system, in this interpreter")


def _is_missing(error: BaseException) -> bool:
    """Whether code failed for what CPython has and this interpreter has not."""
    if isinstance(error, NotImplementedError):
        return str(error).startswith("The monty")
    if isinstance(error, ModuleNotFoundError):
        name = str(error).partition("'")[2].partition("'")[0]
        return name.partition(".")[0] in sys.stdlib_module_names
    return False


def _traceback(frames: Sequence[Any], message: str, code: str) -> str:
    """The traceback as CPython writes it, without the places in a line that only this interpreter marks. A repeated frame is written once."""
    lines = code.split("\n")
    written: list[str] = []
    repeated = 0
    for frame in frames:
        source = frame.source_line or (lines[frame.line - 1] if 0 < frame.line <= len(lines) else "")
        place = f'  File "<tool>", line {frame.line}, in {frame.function_name or "<module>"}\n    {source.strip()}'
        if written and written[-1] == place:
            repeated += 1
            continue
        if repeated:
            written.append(f"  [Previous line repeated {repeated} more times]")
            repeated = 0
        written.append(place)
    if repeated:
        written.append(f"  [Previous line repeated {repeated} more times]")
    return "\n".join(["Traceback (most recent call last):", *written, message]) if written else message


def _package() -> Any:
    try:
        import pydantic_monty
    except ImportError as error:
        raise InputError("the safe interpreter needs the package pydantic-monty; install it with: pip install 'etude[sandbox]'") from error
    return pydantic_monty
