"""The interface of both back ends: code goes in, a status and what the model is to see come out."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self

from etude.errors import InputError

Status = Literal["ok", "error", "unsupported", "timeout", "memory", "output-limit", "killed"]
"""How a call ended.

ok: it ran to its end. error: it raised, or is no Python. unsupported: Python that the safe interpreter does not speak. timeout, memory, output-limit: it ran into that
limit. killed: its process ended before the code did (a signal, `os._exit`, a crash).
"""
BACKENDS = ("safe", "jail")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may use. The last five are the jail's: in the safe interpreter there are no files and no processes."""

    seconds: float = 4.0
    """Wall time."""
    memory: int = 512 * 2**20
    """Bytes: of the heap (safe); of each process's address space and of all its processes' resident memory together (jail)."""
    output: int = 8192
    """Characters of standard output that are kept; a call that writes more is ended. Values and tracebacks are cut to as many."""
    recursion: int = 1000
    """Depth of calls."""
    code: int = 100_000
    """Characters of code."""
    processor: float = 60.0
    """Seconds of a processor for one process, over all calls of a session."""
    processes: int = 16
    """Processes and threads at once."""
    disk: int = 64 * 2**20
    """Bytes in the private /tmp, which is in memory."""
    file: int = 16 * 2**20
    """Bytes of one file."""
    open_files: int = 64
    """Open files of one process."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise InputError(f"the sandbox's limit {field.name} is {value}; expected more than 0")


@dataclass(frozen=True, slots=True)
class Result:
    """What a call gave.

    stdout: what it printed, cut at the limit. value: `repr` of its last expression where that is one with a value, else None. error: the traceback, or one line
    that says which limit ended it; None when the status is ok.
    """

    status: Status
    stdout: str = ""
    value: str | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def text(self) -> str:
        """What the model is to see: output, then the value or the error; `(no output)` where there is nothing."""
        end = self.error if self.error is not None else self.value
        parts = [part.rstrip("\n") for part in (self.stdout, end) if part]
        return "\n".join(parts) or "(no output)"


class Session(ABC):
    """Calls that share their variables. A call that runs into a limit or is killed ends what there was; the next one starts anew."""

    @abstractmethod
    def run(self, code: str) -> Result:
        """Run code where the earlier code of this session has run."""

    @abstractmethod
    def close(self) -> None:
        """Forget the session's state."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Sandbox(ABC):
    """A pool of interpreters. Calls know nothing of each other, unless they are made in one session. May be used from several threads."""

    name: str
    limits: Limits

    @abstractmethod
    def run(self, codes: Sequence[str]) -> list[Result]:
        """Run each piece of code by itself, several at a time. Results are in the order of `codes`; whatever the code does, there is one for each."""

    @abstractmethod
    def session(self) -> Session:
        """A session of its own."""

    @abstractmethod
    def close(self) -> None:
        """End every process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def open_sandbox(backend: str = "safe", *, limits: Limits | None = None, workers: int = 0, preload: Sequence[str] = ()) -> Sandbox:
    """The sandbox of a name: `safe` or `jail`.

    workers: interpreters at once (0: as many as there are cores; the jail twice that, since half of its time is waiting for the kernel).
    preload: modules that the jail imports once, before any call (`sympy` takes a second).
    Raises InputError where the back end cannot be had; neither is ever replaced by something weaker.
    """
    limits = limits or Limits()
    if backend == "safe":
        from etude.sandbox.safe import SafeSandbox

        if preload:
            raise InputError(f"preload is {', '.join(preload)}, but the safe interpreter imports nothing but its own modules; use the jail")
        return SafeSandbox(limits, workers)
    if backend == "jail":
        from etude.sandbox.jail import JailSandbox

        return JailSandbox(limits, workers, preload)
    raise InputError(f"there is no sandbox {backend!r}; expected one of {', '.join(BACKENDS)}")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refused(code: str, limits: Limits) -> Result | None:
    """The result of code that no interpreter need see; None for all other."""
    if len(code) > limits.code:
        return Result("error", error=f"SyntaxError: the code has {len(code)} characters; at most {limits.code} are allowed")
    return None


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of a text, from both ends: of a traceback the end says most."""
    if len(text) <= limit:
        return text
    head, tail = limit // 3, limit - limit // 3
    return f"{text[:head]}\n[... {len(text) - limit} characters left out ...]\n{text[-tail:]}"


def explain(status: Status, limits: Limits) -> str:
    """The line that tells the model which limit ended its code."""
    if status == "timeout":
        return f"TimeoutError: the code ran for more than {limits.seconds:g} seconds"
    if status == "memory":
        return f"MemoryError: the code used more than {limits.memory / 2**20:.0f} MiB"
    if status == "output-limit":
        return f"OutputLimit: the code printed more than {limits.output} characters"
    return "the process was killed before the code had ended"
