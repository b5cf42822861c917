"""What a version of a repository is worth: whether the hidden tests pass on it.

The tests' files, and what configures pytest, are put back to what they were before the hidden ones are added, so that a test which was edited away counts all the same.
One test more, which has to fail, gives away code that makes every test pass.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import PurePosixPath

from etude.errors import InputError
from etude.tasks.repos.instances import Instance
from etude.tasks.repos.store import GitError, GitStore
from etude.tasks.repos.testing import TestReport, TestRunner

TEST_FOLDERS = frozenset({"test", "tests"})
CONFIGURATION = frozenset({"conftest.py", "pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a version did. resolved: every test that decides passed. fail_to_pass, pass_to_pass: shares of these tests that passed (1 where there are none).

    protected: files that were changed and put back. forged: the test that has to fail did not.
    """

    resolved: bool
    fail_to_pass: float = 0.0
    pass_to_pass: float = 0.0
    protected: tuple[str, ...] = ()
    forged: bool = False


def is_protected(path: str) -> bool:
    """Whether a file belongs to the tests: what is in a folder of tests, what pytest collects, and what configures it."""
    parts = PurePosixPath(path).parts
    name = parts[-1]
    return (
        name in CONFIGURATION or not TEST_FOLDERS.isdisjoint(parts[:-1]) or (name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py")))
    )


def with_hidden_tests(store: GitStore, instance: Instance, start: str) -> str:
    """What an instance starts from, with its hidden tests. Raises InputError where its test patch does not fit."""
    try:
        return store.apply(start, instance.test_patch)
    except GitError as error:
        raise InputError(f"{instance.place}: test_patch of {instance.id!r} does not fit its base commit: {error}") from error


def judged_tree(store: GitStore, instance: Instance, start: str, tree: str) -> tuple[str, tuple[str, ...]]:
    """The tree that the hidden tests run on, and the protected files that were put back."""
    with_tests = with_hidden_tests(store, instance, start)
    hidden = store.changed(start, with_tests)
    protected = [path for path in store.changed(start, tree) if is_protected(path) or path in instance.test_files]
    restored = store.with_files_of(tree, start, [path for path in protected if path not in hidden])
    return store.with_files_of(restored, with_tests, hidden), tuple(protected)


def verdict(store: GitStore, runner: TestRunner, instance: Instance, start: str, tree: str) -> Verdict:
    """Run the tests that decide on a version of the repository, which began as `start`."""
    if tree == start:
        return Verdict(False)
    judged, protected = judged_tree(store, instance, start, tree)
    canary = f"test_canary_{secrets.token_hex(8)}.py"
    watched = store.with_files(judged, {canary: b"def test_that_fails():\n    assert False\n"})
    report = runner.run(store, watched, [*instance.test_files, canary])
    if report.complete and report.outcomes.get(f"{canary}::test_that_fails") != "failed":
        return Verdict(False, protected=protected, forged=True)
    return counted(instance, report, protected)


def counted(instance: Instance, report: TestReport, protected: tuple[str, ...] = ()) -> Verdict:
    """The verdict that a report of the deciding tests leads to; a run that did not come to its end solves nothing."""
    fixed, kept = ([report.outcomes.get(test) == "passed" for test in tests] for tests in (instance.fail_to_pass, instance.pass_to_pass))
    shares = [sum(passed) / len(passed) if passed else 1.0 for passed in (fixed, kept)]
    return Verdict(report.complete and all(fixed) and all(kept), *(shares if report.complete else (0.0, 0.0)), protected=protected)
