"""Errors that a person can act on. The command line prints them without a traceback and exits with their code."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class EtudeError(Exception):
    """Base of everything Étude raises on purpose."""

    exit_code = 1


class InputError(EtudeError, ValueError):
    """The user's input cannot be used. The message names what was wrong, what was expected and what to do."""

    exit_code = 2


class MissingExtra(EtudeError, ImportError):
    """An optional dependency is needed. The message names the extra to install, or the `command` that installs it where that takes more."""

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str, *, command: str | None = None) -> None:
        command = command or f"pip install 'etude[{extra}]'"
        super().__init__(f"{purpose} needs the package {package!r}; install it with: {command}")


class CheckpointError(EtudeError):
    """A checkpoint could not be written or read."""


class BudgetExhausted(EtudeError):
    """A request could cost more than what is left of a hard limit. It was not sent."""


class NonFiniteError(EtudeError):
    """A loss or gradient was NaN or infinite; nothing was overwritten."""


class LearnerLost(EtudeError):
    """A process of the learner is gone. The run can go on from its newest checkpoint."""


class WorkerLost(EtudeError):
    """A process that samples or judges is gone and cannot be replaced. The run can go on from its newest checkpoint."""


class OutOfMemory(EtudeError):
    """The memory of a GPU ran out. A run can go on from its newest checkpoint with less at a time."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error is torch's for a GPU whose memory ran out. Does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def first_line(error: BaseException) -> str:
    """What an error says, without whatever follows its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """' Did you mean a, b?' for the closest known names, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f" Did you mean {', '.join(close)}?" if close else ""
