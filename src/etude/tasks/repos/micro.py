"""Micro-repositories: one small function with a single fault, three tests that are seen and five that decide. For cheap runs: they need no bank and no network.

They are made anew each time, and always the same ones. A fault is kept where it changes the result of a call that is seen and of one that decides. Faults run in the jail.
"""

from __future__ import annotations

import difflib
import inspect
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from etude.sandbox.base import Limits
from etude.sandbox.jail import JailSandbox
from etude.tasks.repos import micro_functions
from etude.tasks.repos.faults import Fault, faults
from etude.tasks.repos.instances import Instance
from etude.tasks.repos.store import GitStore
from etude.tasks.repos.tasks import RepositoryTasks, with_options

NAME = "micro"
SEEN = 3
"""Calls of a function that are tests anybody sees."""
FAULTS = 3
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


def repository_tasks(spec: str) -> RepositoryTasks:
    """What stands behind `repos:`: `micro`, or a bank's folder, and perhaps `:option=value,...`. Raises InputError where it is neither."""
    place, options = with_options(spec, f"--tasks repos:{spec}")
    if place != NAME:
        return RepositoryTasks.from_bank(spec)
    return micro_tasks(**options)


def micro_tasks(*, seconds: float = 10.0, **options: Any) -> RepositoryTasks:
    """All of them as a task set: two thirds of the functions to practise on, the others held out. options: further ones of `RepositoryTasks`.

    Raises InputError without git or bubblewrap.
    """
    return _MicroTasks(seconds=seconds, **options)


class _MicroTasks(RepositoryTasks):
    def __init__(self, **options: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="etude-micro-", ignore_cleanup_errors=True)
        store = GitStore(folder=Path(self._folder.name) / "micro.git")
        instances = _instances(store, micro_faults())
        super().__init__(NAME, instances, {NAME: store.folder}, **options)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def micro_faults() -> list[MicroFault]:
    """The faults that are kept, function by function, no two of a function with the same symptom."""
    candidates = {name: _candidates(name) for name in micro_functions.CALLS}
    with JailSandbox(Limits(seconds=20.0)) as jail:
        ran = jail.run([_results_code(name, [_source(name), *(source for _, source in faulty)]) for name, faulty in candidates.items()])
    return [micro for (name, faulty), result in zip(candidates.items(), ran, strict=True) for micro in _kept(name, faulty, result.stdout)]


def _candidates(name: str) -> list[tuple[Fault, str]]:
    """Faults of a function that are tried, with what they make of its text. Kinds come by turns, since some places allow many faults of one kind."""
    clean = _source(name).encode()
    found = faults(clean)
    Random(name).shuffle(found)
    turn = {fault: [other.kind for other in found[:i]].count(fault.kind) for i, fault in enumerate(found)}
    found.sort(key=lambda fault: turn[fault])
    return [(fault, fault.applied(clean).decode()) for fault in found[:TRIED]]


def _kept(name: str, faulty: list[tuple[Fault, str]], printed: str) -> list[MicroFault]:
    """Those that tests tell from the clean function, given a line of results of that one and of each."""
    right, *wrong = (tuple(json.loads(line)) for line in printed.splitlines())
    kept: list[MicroFault] = []
    for (fault, source), results in zip(faulty, wrong, strict=True):
        micro = MicroFault(name, fault.kind, _source(name), source, micro_functions.CALLS[name], right, results)
        seen, decide = ([i for i in micro.failing if (i < SEEN) == visible] for visible in (True, False))
        if seen and decide and len(kept) < FAULTS and _issue(micro) not in {_issue(other) for other in kept}:
            kept.append(micro)
    return kept


def _source(name: str) -> str:
    return inspect.getsource(getattr(micro_functions, name))


_RESULTS = """
import json, signal
def stop(*_): raise TimeoutError
signal.signal(signal.SIGALRM, stop)
for source in {sources!r}:
    names, results = {{}}, []
    exec(source, names)
    for call in {calls!r}:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            results.append(repr(eval("{name}(" + call + ")", names)))
        except Exception as error:
            results.append("raises " + type(error).__name__)
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(results))
"""


def _results_code(name: str, sources: list[str]) -> str:
    """Code that prints, for each text of a function, what its calls give; of what raises or does not end, the name of the error."""
    return _RESULTS.format(sources=sources, calls=micro_functions.CALLS[name], name=name)


def _issue(micro: MicroFault) -> str:
    i = micro.failing[0]
    said = micro.wrong[i] if micro.wrong[i].startswith("raises ") else f"gives {micro.wrong[i]}"
    return f"{micro.function}({micro.calls[i]}) {said}; it should give {micro.right[i]}."


def _instances(store: GitStore, kept: list[MicroFault]) -> list[Instance]:
    functions = list(dict.fromkeys(micro.function for micro in kept))
    held_out = set(functions[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    tests = [_tests(micro) for micro in kept]
    starts = _commits(store, [{f"{micro.function}.py": micro.faulty, VISIBLE_TESTS: visible} for micro, (visible, _) in zip(kept, tests, strict=True)])
    return [
        _instance(micro, i, start, hidden, "test" if micro.function in held_out else "train")
        for i, (micro, start, (_, hidden)) in enumerate(zip(kept, starts, tests, strict=True), 1)
    ]


def _tests(micro: MicroFault) -> tuple[str, str]:
    """The file of tests that anybody sees, and the one that decides."""
    cases = enumerate(zip(micro.calls, micro.right, strict=True), 1)
    each = [f"\n\ndef test_{i}():\n    assert {micro.function}({call}) == {right}\n" for i, (call, right) in cases]
    head = f"from {micro.function} import {micro.function}\n"
    return head + "".join(each[:SEEN]), head + "".join(each[SEEN:])


def _instance(micro: MicroFault, number: int, start: str, hidden: str, split: str) -> Instance:
    file = f"{micro.function}.py"
    names = [f"{VISIBLE_TESTS if i < SEEN else HIDDEN_TESTS}::test_{i + 1}" for i in range(len(micro.calls))]
    failing = [names[i] for i in micro.failing]
    return Instance(
        id=f"{micro.function}-{number}",
        repo=NAME,
        base_commit=start,
        patch=_patch(file, micro.faulty, micro.clean),
        test_patch=_patch(HIDDEN_TESTS, "", hidden),
        problem=_issue(micro),
        fail_to_pass=tuple(failing),
        pass_to_pass=tuple(test for test in names if test not in failing),
        visible=tuple(test for test in failing if test.startswith(VISIBLE_TESTS)),
        split=split,
        place=f"micro-repository {micro.function}",
    )


def _commits(store: GitStore, versions: list[dict[str, str]]) -> list[str]:
    """A commit of the files of each version, all by one call of git."""
    stream: list[bytes] = []
    for i, files in enumerate(versions, 1):
        stream.append(f"commit refs/tasks/{i}\nmark :{i}\ncommitter etude <etude@localhost> 946684800 +0000\ndata 0\n".encode())
        for path, text in files.items():
            stream.append(f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n".encode())
    marks = store.folder / "marks"
    store.run("fast-import", "--quiet", f"--export-marks={marks}", data=b"".join(stream))
    found = dict(line.split() for line in marks.read_text().splitlines())
    return [found[f":{i}"] for i in range(1, len(versions) + 1)]


def _patch(file: str, before: str, after: str) -> str:
    """A patch of one file as git reads it; from nothing, a new file."""
    old = f"a/{file}" if before else "/dev/null"
    lines = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), old, f"b/{file}")
    mode = "" if before else "new file mode 100644\n"
    return f"diff --git a/{file} b/{file}\n{mode}" + "".join(lines)
