"""Micro-repositories: one small function with a single fault, three tests that are seen and five that decide. For runs that have to be cheap; they need no bank and no network.

They are made anew each time, and always the same ones. A fault is kept where it changes the result of a call that is seen and of one that decides. Faults run in the jail.
"""

from __future__ import annotations

import difflib
import inspect
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from etude.sandbox.base import Limits
from etude.sandbox.jail import JailSandbox
from etude.tasks.repos import micro_functions
from etude.tasks.repos.faults import Fault, faults
from etude.tasks.repos.instances import Instance
from etude.tasks.repos.store import GitStore
from etude.tasks.repos.tasks import RepositoryTasks

NAME = "micro"
SEEN = 3
"""Calls of a function that are tests anybody sees."""
FAULTS = 4
"""Faults of a function at most."""
TRIED = 8
"""Faults of a function that are run to see what they do."""
HELD_OUT_EVERY = 3
"""Every third function is held out with all its faults."""
VISIBLE_TESTS, HIDDEN_TESTS = "test_visible.py", "test_hidden.py"


@dataclass(frozen=True, slots=True)
class MicroFault:
    """A function with a fault: both texts, its calls, what each should give and what it gives with the fault."""

    function: str
    kind: str
    clean: str
    faulty: str
    calls: tuple[str, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def failing(self) -> list[int]:
        return [i for i, (right, wrong) in enumerate(zip(self.right, self.wrong, strict=True)) if right != wrong]


def micro_tasks(*, turns: int = 20, seconds: float = 10.0, workers: int = 0) -> RepositoryTasks:
    """All of them as a task set: two thirds of the functions to practise on, the others held out. Raises InputError without git or bubblewrap."""
    return _MicroTasks(turns=turns, seconds=seconds, workers=workers)


class _MicroTasks(RepositoryTasks):
    def __init__(self, *, turns: int, seconds: float, workers: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="etude-micro-", ignore_cleanup_errors=True)
        store = GitStore(folder=Path(self._folder.name) / "micro.git")
        instances = list(_instances(store, micro_faults()))
        super().__init__(NAME, instances, {NAME: store.folder}, turns=turns, seconds=seconds, workers=workers)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def micro_faults() -> list[MicroFault]:
    """The faults that are kept, function by function, no two of a function with the same symptom."""
    candidates: list[tuple[str, str, Fault, str]] = []
    for name in micro_functions.CALLS:
        clean = inspect.getsource(getattr(micro_functions, name))
        found = faults(clean.encode())
        Random(name).shuffle(found)
        # Kinds by turns, since some places allow many faults of one kind.
        turn = {fault: [other.kind for other in found[:i]].count(fault.kind) for i, fault in enumerate(found)}
        found.sort(key=lambda fault: turn[fault])
        candidates += [(name, clean, fault, fault.applied(clean.encode()).decode()) for fault in found[:TRIED]]
    with JailSandbox(Limits(seconds=1.0)) as jail:
        ran = jail.run([_results_code(faulty, name) for name, _, _, faulty in candidates])
    kept: dict[str, list[MicroFault]] = {}
    for (name, clean, fault, faulty), result in zip(candidates, ran, strict=True):
        if not result.ok:
            continue
        calls = micro_functions.CALLS[name]
        right = tuple(repr(_called(getattr(micro_functions, name), call)) for call in calls)
        micro = MicroFault(name, fault.kind, clean, faulty, calls, right, tuple(result.stdout.split("\n")[: len(calls)]))
        same = kept.setdefault(name, [])
        symptoms = {_issue(other) for other in same}
        seen, decide = ([i for i in micro.failing if (i < SEEN) == visible] for visible in (True, False))
        if seen and decide and len(same) < FAULTS and _issue(micro) not in symptoms:
            same.append(micro)
    return [micro for same in kept.values() for micro in same]


def _called(function: object, call: str) -> object:
    return eval(f"function({call})", {"function": function})


def _results_code(source: str, name: str) -> str:
    """Code that prints what each call gives, a line each; what raises gives the name of the error."""
    calls = micro_functions.CALLS[name]
    return f"{source}\n\nfor call in {calls!r}:\n    try:\n        print(repr(eval('{name}(' + call + ')')))\n    except Exception as error:\n        print('raises ' + type(error).__name__)\n"


def _issue(micro: MicroFault) -> str:
    i = micro.failing[0]
    said = micro.wrong[i] if micro.wrong[i].startswith("raises ") else f"gives {micro.wrong[i]}"
    return f"{micro.function}({micro.calls[i]}) {said}; it should give {micro.right[i]}."


def _instances(store: GitStore, kept: list[MicroFault]) -> Iterator[Instance]:
    functions = list(dict.fromkeys(micro.function for micro in kept))
    counts: dict[str, int] = {}
    for micro in kept:
        name = micro.function
        counts[name] = counts.get(name, 0) + 1
        file = f"{name}.py"
        tests = [f"def test_{i + 1}():\n    assert {name}({call}) == {right}\n" for i, (call, right) in enumerate(zip(micro.calls, micro.right, strict=True))]
        head = f"from {name} import {name}\n\n\n"
        visible, hidden = head + "\n\n".join(tests[:SEEN]), head + "\n\n".join(tests[SEEN:])
        names = [f"{VISIBLE_TESTS if i < SEEN else HIDDEN_TESTS}::test_{i + 1}" for i in range(len(tests))]
        failing = [names[i] for i in micro.failing]
        yield Instance(
            id=f"{name}-{counts[name]}",
            repo=NAME,
            base_commit=store.with_files(None, {file: micro.faulty.encode(), VISIBLE_TESTS: visible.encode()}),
            patch=_patch(file, micro.faulty, micro.clean),
            test_patch=_patch(HIDDEN_TESTS, "", hidden),
            problem=_issue(micro),
            fail_to_pass=tuple(failing),
            pass_to_pass=tuple(test for test in names if test not in failing),
            visible=tuple(test for test in failing if test.startswith(VISIBLE_TESTS)),
            split="test" if functions.index(name) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train",
            place=f"micro-repository {name}",
        )


def _patch(file: str, before: str, after: str) -> str:
    """A patch of one file as git reads it; from nothing, a new file."""
    old = f"a/{file}" if before else "/dev/null"
    lines = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), old, f"b/{file}")
    mode = "" if before else "new file mode 100644\n"
    return f"diff --git a/{file} b/{file}\n{mode}" + "".join(lines)
