"""Running code that a model wrote: a safe interpreter for the common case, and full CPython in a process jail. Nothing a model wrote runs anywhere else."""

from etude.sandbox.base import Limits, Result, Sandbox, Session, Status, open_sandbox

__all__ = ["Limits", "Result", "Sandbox", "Session", "Status", "open_sandbox"]
