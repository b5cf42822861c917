"""Tests of a version of a repository, run by pytest inside the jail, in a copy of its files that is gone afterwards."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etude.errors import InputError, MissingExtra
from etude.sandbox.base import Limits, Result
from etude.sandbox.jail import JailSandbox
from etude.tasks.repos.store import GitStore

RUNNER = Path(__file__).with_name("pytest_in_jail.py").read_text()
_VARYING = ((re.compile(r" in \d+\.\d+s(?: \(\d+:\d\d:\d\d\))?"), ""), (re.compile(r"\b0x[0-9a-f]{6,}\b"), "0x..."))
"""What differs between equal runs, times and addresses, and what stands in its place. So the same tests of the same files give the same words."""
MOST_REMEMBERED = 500
"""Reports that are kept: the same tests of the same tree are run once."""
CODE = 1_000_000
"""Characters of the call: the runner, and names of tests."""


@dataclass(frozen=True, slots=True)
class TestReport:
    """How a run of tests went.

    outcomes: node id -> passed, failed, error or skipped; a file that could not be imported has an entry of its own. messages: of those that failed, what they said.
    output: what pytest printed. complete: whether the run came to its end; otherwise `output` says which limit ended it, and nothing is known of any test.
    """

    __test__ = False

    outcomes: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    output: str = ""
    complete: bool = False
    seconds: float = 0.0

    @property
    def failed(self) -> list[str]:
        """Tests that failed or could not be run."""
        return [name for name, outcome in self.outcomes.items() if outcome in ("failed", "error")]

    @property
    def passed(self) -> list[str]:
        return [name for name, outcome in self.outcomes.items() if outcome == "passed"]


class TestRunner:
    """A jail that runs the tests of repositories. May be used from several threads.

    seconds: of one run of tests. memory: bytes of its processes. disk: bytes of a repository and whatever its tests write. workers: runs at once.
    Raises MissingExtra without pytest, InputError where there can be no jail.
    """

    __test__ = False

    def __init__(self, *, seconds: float = 30.0, memory: int = 1 << 30, disk: int = 256 << 20, workers: int = 0) -> None:
        if importlib.util.find_spec("pytest") is None:
            raise MissingExtra("pytest", "repos", "running the tests of repositories")
        limits = Limits(
            seconds=seconds, memory=memory, disk=disk, output=400_000, file=64 << 20, code=CODE, processor=4 * seconds, processes=64, open_files=256
        )
        self._jail = JailSandbox(limits, workers, preload=("pytest",))
        self._remembered: dict[tuple[str, tuple[str, ...]], TestReport] = {}

    def run(self, store: GitStore, tree: str, selected: Sequence[str] = (), *, again: bool = False) -> TestReport:
        """Run the selected tests of a tree (files, folders or node ids), or all of them. again: although the same ones of the same tree came to an end lately."""
        key = (tree, tuple(selected))
        known = None if again else self._remembered.get(key)
        if known is not None:
            return known
        report = self._run(store, tree, selected)
        if report.complete:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = report
        return report

    def _run(self, store: GitStore, tree: str, selected: Sequence[str]) -> TestReport:
        folders = ["", "src"] if any(path.startswith("src/") for path in store.paths(tree)) else [""]
        code = f"{RUNNER}\n\noutcomes({list(selected)!r}, {folders!r})"
        return report_of(self._jail.run_in(store.archive(tree), code))

    def close(self) -> None:
        self._jail.close()


def report_of(result: Result) -> TestReport:
    """What a call of the runner gave. Only texts are taken from it: the code under test may have written them."""
    if not result.ok or result.value is None:
        return TestReport(output=steady(result.text), seconds=result.seconds)
    try:
        given = json.loads(result.value)
        outcomes, messages = ({str(k): str(v) for k, v in given[part].items()} for part in ("outcomes", "messages"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return TestReport(output=steady(result.text), seconds=result.seconds)
    messages = {test: steady(message) for test, message in messages.items()}
    return TestReport(outcomes, messages, steady(result.stdout), complete=True, seconds=result.seconds)


def steady(text: str) -> str:
    """A text without what differs between equal runs."""
    for varying, instead in _VARYING:
        text = varying.sub(instead, text)
    return text


def file_of(test: str) -> str:
    """The file of a test: 'tests/test_x.py::TestA::test_b[1]' -> 'tests/test_x.py'. Raises InputError for what is no pytest node id."""
    file, colons, _ = test.partition("::")
    if not colons or not file.endswith(".py"):
        raise InputError(f"the test {test!r} is no pytest node id; expected file.py::test or file.py::Class::test")
    return file
