"""Étude: self-improvement of models on one loop.

Every name below is imported when it is first used, so that `import etude` is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.api import evaluate, train
    from etude.claim import Arm, Claim, Comparison, Precondition
    from etude.comparing import compare
    from etude.comparing_runs import compare_runs
    from etude.config import PolicyOptimizationConfig, TrainConfig
    from etude.errors import EtudeError, InputError
    from etude.loop import PolicyOptimization
    from etude.method import Method, MethodCard, State, get_method, known_methods, register
    from etude.run import Run
    from etude.settings import build_config
    from etude.summary import Summary
    from etude.tasks.base import Environment, EnvironmentStep, TaskSet
    from etude.types import Group, Message, Segment, Task, Trajectory

_HOMES = {
    "etude.api": ("evaluate", "train"),
    "etude.comparing": ("compare",),
    "etude.comparing_runs": ("compare_runs",),
    "etude.config": ("PolicyOptimizationConfig", "TrainConfig"),
    "etude.errors": ("EtudeError", "InputError"),
    "etude.loop": ("PolicyOptimization",),
    "etude.claim": ("Arm", "Claim", "Comparison", "Precondition"),
    "etude.method": ("Method", "MethodCard", "State", "get_method", "known_methods", "register"),
    "etude.run": ("Run",),
    "etude.settings": ("build_config",),
    "etude.summary": ("Summary",),
    "etude.tasks.base": ("Environment", "EnvironmentStep", "TaskSet"),
    "etude.types": ("Group", "Message", "Segment", "Task", "Trajectory"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Arm",
    "Claim",
    "Comparison",
    "Environment",
    "EnvironmentStep",
    "EtudeError",
    "Group",
    "InputError",
    "Message",
    "Method",
    "MethodCard",
    "PolicyOptimization",
    "PolicyOptimizationConfig",
    "Precondition",
    "Run",
    "Segment",
    "State",
    "Summary",
    "Task",
    "TaskSet",
    "TrainConfig",
    "Trajectory",
    "build_config",
    "compare",
    "compare_runs",
    "evaluate",
    "get_method",
    "known_methods",
    "register",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("etude")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'etude' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
