"""Single faults in source text, and the bank of tasks that they make."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Literal

import pytest
from sandbox.test_jail import needs_bwrap

from etude.errors import InputError
from etude.tasks.loading import load_tasks
from etude.tasks.repos import GitStore, RepositoryTasks, TestRunner, verdict
from etude.tasks.repos.bank import Package, about, make_tasks, symptom_of, with_splits, without_function, write_bank
from etude.tasks.repos.faults import KINDS, faults

MODULE = '''
"""Words and numbers: 1 + 2."""

LIMIT = 3


def f(a, b=3, *, strict=True):
    """Not 1 < 2."""
    if a is None:
        return 0

    # The sum, in é.
    total = a + b  # 1 + 2
    unset = [each for each in (a, b)]
    if not strict and a < b <= LIMIT:
        total = max(a, total)
    return total - 1 if total in (10, 20) or b else ","
'''.encode()


def test_faults_are_small_replacements_of_every_kind() -> None:
    found = {(fault.kind, MODULE[fault.start : fault.end].decode(), fault.replacement) for fault in faults(MODULE)}
    assert {kind for kind, _, _ in found} == set(KINDS)
    assert found >= {
        ("default", "3", "4"),
        ("default", "True", "False"),
        ("early-return", "    if a is None:\n        return 0\n", ""),
        ("comparison", "is", "is not"),
        ("comparison", "<=", "<"),
        ("comparison", "in", "not in"),
        ("arithmetic", "+", "-"),
        ("boolean", "or", "and"),
        ("dropped-not", "not strict", "strict"),
        ("swapped-arguments", "a, total", "total, a"),
        ("off-by-one", "10", "11"),
        ("constant", '","', "''"),
        ("variable", "total", "unset"),
    }
    for fault in faults(MODULE):
        ast.parse(fault.applied(MODULE))
        assert fault.applied(MODULE) != MODULE
        assert fault.function == "f"
        # Another variable is one that has a value by then.
        assert fault.kind != "variable" or fault.replacement in {
            "a",
            "b",
            "strict",
            *(("total",) if fault.line > 13 else ()),
            *(("unset",) if fault.line > 14 else ()),
        }
        # Documentation, comments and the module's own constants stay.
        assert b'"""Not 1 < 2."""' in fault.applied(MODULE)
        assert b"# The sum, in \xc3\xa9." in fault.applied(MODULE)
        assert b"LIMIT = 3" in fault.applied(MODULE)
    assert faults(b"def (") == faults(b"x = 1 + 2") == faults("# coding: latin-1\ndef f(): return 'é' + 1".encode("latin-1")) == []


def test_a_test_is_taken_out_with_its_decorators_and_an_empty_class() -> None:
    source = b"import x\n\nclass A:\n    @x.mark\n    def test_a(self):\n        pass\n    def test_b(self):\n        pass\n\ndef test_c():\n    pass\n"
    shorter = without_function(source, ["A", "test_a"])
    assert shorter == b"import x\n\nclass A:\n    def test_b(self):\n        pass\n\ndef test_c():\n    pass\n"
    assert without_function(shorter, ["A", "test_b"]) == b"import x\n\n\ndef test_c():\n    pass\n"
    assert without_function(source, ["A", "test_c"]) is None


def test_an_issue_says_what_a_test_said_in_a_line() -> None:
    assert about("tests/t.py::A::test_minutes_of_one[3-4]") == "minutes of one"
    assert symptom_of("AssertionError: assert 24 == 60\n +  where 24 = minutes(1)\n +    where x = y") == "assert 24 == 60, where 24 = minutes(1), where x = y"
    assert symptom_of("") == ""


def test_the_two_sides_of_a_bank_share_no_package_or_function() -> None:
    rows = [{"repo": f"p{i % 5}", "file": "a.py", "function": f"f{i % 7}"} for i in range(70)]
    ways: list[tuple[Literal["package", "function"], tuple[str, ...]]] = [("package", ("repo",)), ("function", ("repo", "file", "function"))]
    for by, names in ways:
        sides: dict[str, set] = {"train": set(), "test": set()}
        for row in with_splits(rows, by):
            sides[row["split"]].add(tuple(row[name] for name in names))
        assert sides["train"]
        assert sides["test"]
        assert not sides["train"] & sides["test"]
    with pytest.raises(InputError, match="one package only"):
        with_splits([{"repo": "p"}], "package")


@needs_bwrap
def test_a_bank_of_a_toy_repository(tmp_path: Path) -> None:
    store = GitStore()
    source = b"def larger(a, b):\n    return a if a > b else b\n\n\ndef twice(a):\n    return a * 2\n"
    claims = {"larger": b"larger(1, 2) == 2", "larger_turned": b"larger(4, 3) == 4", "twice": b"twice(3) == 6"}
    tests = b"import toy\n\n" + b"\n".join(b"def test_%s():\n    assert toy.%s\n" % (name.encode(), claim) for name, claim in claims.items())
    more = b"".join(b"def test_%d():\n    assert True\n" % i for i in range(8))
    package = Package(
        "toy", store, store.with_files(None, {"toy.py": source, "test_toy.py": tests, "test_more.py": more, "setup.py": b"def f(a):\n    return a + 1\n"})
    )
    runner = TestRunner(workers=1)
    rows, tally = make_tasks(package, runner, count=2, seed=0)
    assert len(rows) == tally.kept == 2
    assert {row["function"] for row in rows} == {"larger", "twice"}
    write_bank(tmp_path / "bank", [package], with_splits(rows, "function"))
    tasks = load_tasks(f"repos:{tmp_path / 'bank'}:workers=1")
    assert isinstance(tasks, RepositoryTasks)
    assert (tasks.train_size, len(tasks.held_out())) == (1, 1)
    assert not tasks.start_of(tasks.held_out()[0])[0].has(package.tree)
    for task in [*tasks.held_out(), tasks.train_task(0, 0)]:
        instance = tasks.instance(task)
        inside, start = tasks.start_of(task)
        assert set(instance.visible) < set(instance.fail_to_pass)
        # Hidden tests are not in what the model starts from.
        hidden = {test.rpartition("::")[2] for test in set(instance.fail_to_pass) - set(instance.visible)}
        assert hidden
        assert not any(f"def {name}(".encode() in inside.read(start, "test_toy.py") for name in hidden)
        mended = inside.apply(start, instance.patch)
        assert verdict(inside, tasks.runner, instance, start, mended).resolved
        assert not verdict(inside, tasks.runner, instance, start, inside.with_files(start, {"toy.py": inside.read(start, "toy.py") + b"\n"})).resolved
        assert json.dumps(instance.patch) not in json.dumps(task.messages[0].content)
    broken = Package("broken", store, store.with_files(package.tree, {"test_toy.py": tests.replace(b"== 6", b"== 7")}))
    with pytest.raises(InputError, match=r"the tests of broken do not pass as they are \(test_toy.py::test_twice\)"):
        make_tasks(broken, runner, count=1, seed=0)
    tasks.close()
    runner.close()
