"""What runs pytest inside the jail. It is sent there as text, with a call of `outcomes` behind it, and starts in a copy of the repository.

Standard library and pytest only: nothing of Étude is visible there.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest


class Recorder:
    """How each test ended: passed, failed, skipped or error, and the last line of its failure's message."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.messages: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid
        if report.when == "call":
            self.outcomes[name] = report.outcome
        elif report.failed:
            self.outcomes[name] = "error"
        elif report.skipped:
            self.outcomes.setdefault(name, "skipped")
        if report.failed:
            self.note(name, report)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.outcomes[report.nodeid] = "error"
            self.note(report.nodeid, report)

    def note(self, name: str, report: Any) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = str(crash.message if crash is not None else report.longrepr or "")
        self.messages[name] = text[:300]


class Plain(str):
    """A text that stands for itself where its value is shown: not in quotes, which whoever reads it would have to evaluate."""

    def __repr__(self) -> str:
        return str(self)


def outcomes(selected: list[str], folders: list[str]) -> str:
    """Run tests (all where none is selected); their outcomes and messages as JSON. folders: below the repository, to import from."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    here = os.getcwd()
    sys.path[:0] = [os.path.join(here, folder) if folder else here for folder in folders]
    # Processes that tests start import from the same places.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[: len(folders)])
    sys.argv = ["pytest"]
    recorder = Recorder()
    options = ["-q", "--tb=short", "--color=no", "-p", "no:cacheprovider", "--rootdir=.", "-o", "addopts="]
    code = pytest.main([*options, *selected], plugins=[recorder])
    return Plain(json.dumps({"code": int(code), "outcomes": recorder.outcomes, "messages": recorder.messages}))
