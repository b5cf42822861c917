"""A bank of software tasks out of clean repositories: single faults that make tests fail, with those tests taken out of what the model sees.

A task in the bank is a line in the format of SWE-bench and a commit in the repository's bundle. It is kept only when it has been tried: the clean version passes all of its
tests, the one with the fault fails some, the one that the model starts from fails just those that it is told of, and both patches together give back the clean version.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from etude.errors import InputError
from etude.tasks.repos.faults import Fault, faults
from etude.tasks.repos.store import GitStore
from etude.tasks.repos.tasks import BANK, REPOSITORIES
from etude.tasks.repos.testing import TestReport, TestRunner, file_of
from etude.tasks.repos.verdict import is_protected

MOST_FAILING = 0.25
"""A fault that makes a larger share of the tests fail is no local one."""
HELD_OUT_SHARE = 4
"""One function, or package, in so many is held out."""
NO_SOURCE = frozenset({"setup.py", "noxfile.py", "tasks.py", "docs", "doc", "examples", "benchmarks", "bench", "tools", "scripts", "admin"})
"""Files and folders whose faults no test would see."""
ISSUES = (
    '{package}: "{about}" goes wrong.\n\n{symptom}',
    'Since the last change of {package}, the case "{about}" no longer works as it did: {symptom}',
    'I use {package} and found that the case "{about}" is not right.\n\nWhat I see: {symptom}',
)


@dataclass(slots=True)
class Tally:
    """What became of the faults that were tried: kept, and why others were not."""

    kept: int = 0
    unnoticed: int = 0
    too_many: int = 0
    unfinished: int = 0
    inseparable: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Package:
    """A clean repository: its name, and its tree in a store."""

    name: str
    store: GitStore
    tree: str


def clean_report(package: Package, runner: TestRunner) -> TestReport:
    """The tests of a clean repository, which have to pass, twice alike. Raises InputError where they do not."""
    first = runner.run(package.store, package.tree)
    if not first.complete or first.failed or not first.passed:
        reason = ", ".join(first.failed[:3]) or first.output[-300:] or "there are none"
        raise InputError(f"the tests of {package.name} do not pass as they are ({reason}); expected a repository whose tests all pass here")
    if first.outcomes != runner.run(package.store, package.tree, again=True).outcomes:
        raise InputError(f"the tests of {package.name} do not end alike when they are run twice; expected tests that depend on the code alone")
    return first


def make_tasks(
    package: Package, runner: TestRunner, *, count: int, seed: int, said: Callable[[str], None] = lambda text: None
) -> tuple[list[dict[str, Any]], Tally]:
    """Up to `count` tasks of a repository, one a function at first, and what became of the faults that were tried.

    Each is a line for the bank without its `split`, with the fault's `kind`, `file` and `function`. The commits that they start from are under `refs/tasks/` in the store.
    Raises InputError for a repository whose own tests do not pass.
    """
    clean, random, tally = clean_report(package, runner), Random(f"{package.name}/{seed}"), Tally()
    tasks: list[dict[str, Any]] = []
    for path, fault in _candidates(package, clean, random):
        if len(tasks) == count:
            break
        row = _task(package, runner, clean, path, fault, random, f"{package.name}-{len(tasks) + 1}", tally)
        if row is not None:
            tasks.append(row)
            tally.kept += 1
            tally.kinds[fault.kind] = tally.kinds.get(fault.kind, 0) + 1
            said(f"{row['instance_id']}: {fault.kind} in {path}, {fault.function}; {len(row['FAIL_TO_PASS'])} tests fail, {len(row['visible'])} visible")
    return tasks, tally


def _candidates(package: Package, clean: TestReport, random: Random) -> Iterator[tuple[str, Fault]]:
    """Faults in an order in which functions come again late, and kinds alternate."""
    found: list[tuple[str, Fault]] = []
    tests = {file_of(test) for test in clean.passed}
    for path in package.store.paths(package.tree):
        if path.endswith(".py") and not is_protected(path) and path not in tests and NO_SOURCE.isdisjoint(path.split("/")):
            found += [(path, fault) for fault in faults(package.store.read(package.tree, path))]
    random.shuffle(found)
    seen: dict[object, int] = {}
    ranked: list[tuple[int, int, str, Fault]] = []
    for path, fault in found:
        ranks = []
        for key in ((path, fault.function), fault.kind):
            seen[key] = seen.get(key, 0) + 1
            ranks.append(seen[key])
        ranked.append((ranks[0], ranks[1], path, fault))
    for _, _, path, fault in sorted(ranked, key=lambda entry: entry[:2]):
        yield path, fault


def _task(package: Package, runner: TestRunner, clean: TestReport, path: str, fault: Fault, random: Random, name: str, tally: Tally) -> dict[str, Any] | None:
    """The task that a fault makes, or None, which is counted."""
    store, source = package.store, package.store.read(package.tree, path)
    faulty = store.with_files(package.tree, {path: fault.applied(source)})
    report = runner.run(store, faulty)
    if not report.complete or report.outcomes.keys() != clean.outcomes.keys():
        tally.unfinished += 1
        return None
    failing = [test for test in clean.passed if report.outcomes[test] != "passed"]
    if not failing:
        tally.unnoticed += 1
        return None
    if len(failing) > max(1, MOST_FAILING * len(clean.passed)):
        tally.too_many += 1
        return None
    functions = list(dict.fromkeys(_function_of(test) for test in failing))
    visible_functions = random.sample(functions, random.randint(0, len(functions) // 2))
    visible = [test for test in failing if _function_of(test) in visible_functions]
    start = _without(store, faulty, [f for f in functions if f not in visible_functions])
    seen = runner.run(store, start) if start is not None else TestReport()
    if start is None or not seen.complete or sorted(seen.failed) != sorted(visible):
        tally.inseparable += 1
        return None
    shown = random.choice(visible or failing)
    symptom = symptom_of(report.messages.get(shown, ""))
    problem = random.choice(ISSUES).format(package=package.name, about=about(shown), symptom=symptom)
    lost = source.splitlines()[fault.line - 1].decode("utf-8", "replace").strip()
    if not symptom or lost in problem:
        tally.inseparable += 1
        return None
    patch = store.diff(start, store.with_files_of(start, package.tree, [path]))
    test_patch = store.diff(start, store.with_files_of(start, package.tree, [p for p in store.changed(start, package.tree) if p != path]))
    assert store.apply(store.apply(start, patch), test_patch) == package.tree, "both patches together give back the clean version"
    commit = store.commit(start, name)
    store.git("update-ref", f"refs/tasks/{name}", commit)
    return {
        **{"instance_id": name, "repo": package.name, "base_commit": commit, "patch": patch, "test_patch": test_patch, "problem_statement": problem},
        **{"FAIL_TO_PASS": failing, "PASS_TO_PASS": [test for test in clean.passed if test not in set(failing)], "visible": visible},
        **{"kind": fault.kind, "file": path, "function": fault.function},
    }


def _function_of(test: str) -> str:
    """A test without its parameters."""
    return test.partition("[")[0]


def _without(store: GitStore, tree: str, functions: Sequence[str]) -> str | None:
    """The tree without some test functions; None where one is not in the file that it is run from."""
    changed: dict[str, bytes | None] = {}
    for file in dict.fromkeys(file_of(function) for function in functions):
        text = store.read(tree, file)
        for function in functions:
            if file_of(function) == file:
                shorter = without_function(text, function.split("::")[1:])
                if shorter is None:
                    return None
                text = shorter
        changed[file] = text
    return store.with_files(tree, changed) if changed else tree


def without_function(source: bytes, names: Sequence[str]) -> bytes | None:
    """A module without a function, given by its names from the outside in; a class that holds nothing else goes too. None where there is no such function."""
    body: Sequence[ast.stmt] = ast.parse(source).body
    chain: list[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = []
    for name in names:
        found = next((node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name), None)
        if found is None:
            return None
        chain.append(found)
        body = found.body
    gone = chain.pop()
    while chain and len(chain[-1].body) == 1:
        gone = chain.pop()
    first = min([gone.lineno, *(decorator.lineno for decorator in gone.decorator_list)])
    lines = source.splitlines(keepends=True)
    return b"".join([*lines[: first - 1], *lines[gone.end_lineno :]])


def about(test: str) -> str:
    """What a test is about, by its name: 'tests/test_x.py::TestClock::test_minutes_of_one[3]' -> 'minutes of one'."""
    name = _function_of(test).rpartition("::")[2]
    return name.removeprefix("test").strip("_").replace("_", " ") or "a part of it"


def symptom_of(message: str) -> str:
    """What a failing test said, in one line: its first line, and what the names in it stand for."""
    lines = [line.strip() for line in message.splitlines()]
    told = [line.removeprefix("+").strip() for line in lines[1:] if line.startswith("+") and "where" in line]
    first = (lines or [""])[0].removeprefix("AssertionError: ")
    return ", ".join([first, *told[:2]])[:300] if first else ""


def with_splits(tasks: Sequence[dict[str, Any]], by: Literal["package", "function"]) -> list[dict[str, Any]]:
    """The tasks with a `split`: a fixed quarter of the packages or of the functions, in the order of a hash of their names, is held out, so that the sides share none."""
    keys = [str(task["repo"]) if by == "package" else f"{task['repo']}/{task['file']}/{task['function']}" for task in tasks]
    ordered = sorted(dict.fromkeys(keys), key=lambda key: hashlib.blake2b(key.encode(), digest_size=8).digest())
    if len(ordered) < 2:
        raise InputError(f"there is one {by} only; expected at least 2, of which one is held out")
    held = set(ordered[: max(1, len(ordered) // HELD_OUT_SHARE)])
    return [{**task, "split": "test" if key in held else "train"} for task, key in zip(tasks, keys, strict=True)]


def write_bank(folder: Path, packages: Sequence[Package], tasks: Sequence[dict[str, Any]]) -> None:
    """The bank's folder: the tasks, and a bundle of the commits that they start from for each repository that has some. The clean version is in no bundle."""
    (folder / REPOSITORIES).mkdir(parents=True, exist_ok=True)
    for package in packages:
        refs = [f"refs/tasks/{task['instance_id']}" for task in tasks if task["repo"] == package.name]
        if refs:
            package.store.git("bundle", "create", "--quiet", str((folder / REPOSITORIES / f"{package.name}.bundle").resolve()), *refs)
    (folder / BANK).write_text("".join(json.dumps(task) + "\n" for task in tasks))
