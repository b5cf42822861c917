"""Software tasks: versions as values, actions, the verdict of hidden tests, and the formats that they are read from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox.test_jail import needs_bwrap

from etude.errors import InputError
from etude.sandbox import Result
from etude.tasks.base import EPISODE_TAGS, EnvironmentStep
from etude.tasks.loading import load_tasks
from etude.tasks.repos import GitError, GitStore, Instance, RepositoryEnvironment, RepositoryTasks, TestReport, read_instances
from etude.tasks.repos.actions import Action, action_in, edited, found, listed, occurrences, viewed
from etude.tasks.repos.environment import shown
from etude.tasks.repos.lessons import replacements
from etude.tasks.repos.store import plain_path
from etude.tasks.repos.testing import report_of
from etude.tasks.repos.verdict import counted

SOURCE, TESTS = "src/clock/__init__.py", "tests/test_clock.py"
RIGHT = b"def minutes(hours):\n    return hours * 60\n"
WRONG = RIGHT.replace(b"60", b"24")
VISIBLE = b"from clock import minutes\n\n\ndef test_zero():\n    assert minutes(0) == 0\n"
HIDDEN = VISIBLE + b"\n\ndef test_secret():\n    assert minutes(2) == 120\n"
FILES: dict[str, bytes | None] = {
    SOURCE: WRONG,
    TESTS: VISIBLE,
    "tests/conftest.py": b"",
    "dos.txt": b"a\r\nb\r\n",
    ".gitattributes": b"* text=auto\ntests export-ignore\n",
}
EDIT = f"edit {SOURCE}\n<<<<<<< SEARCH\n    return hours * 24\n=======\n    return hours * 60\n>>>>>>> REPLACE"


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of one task, made by hand."""
    folder = tmp_path_factory.mktemp("bank")
    store = GitStore(folder=folder / "work.git")
    start = store.with_files(None, FILES)
    commit = store.commit(start, "start")
    store.git("update-ref", "refs/heads/main", commit)
    (folder / "repositories").mkdir()
    store.git("bundle", "create", "-q", str(folder / "repositories" / "toy__clock.bundle"), "refs/heads/main")
    row = {
        **{"instance_id": "clock-1", "repo": "toy/clock", "base_commit": commit, "problem_statement": "minutes(2) gives 48"},
        **{"patch": store.diff(start, store.with_files(start, {SOURCE: RIGHT})), "test_patch": store.diff(start, store.with_files(start, {TESTS: HIDDEN}))},
        **{"FAIL_TO_PASS": json.dumps([f"{TESTS}::test_secret"]), "PASS_TO_PASS": [f"{TESTS}::test_zero"]},
    }
    (folder / "tasks.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="module")
def tasks(bank: Path) -> Iterator[RepositoryTasks]:
    made = load_tasks(f"repos:{bank}:turns=6,workers=1,seconds=10")
    assert isinstance(made, RepositoryTasks)
    yield made
    made.close()


def begun(tasks: RepositoryTasks) -> RepositoryEnvironment:
    environment = tasks.environment()
    assert isinstance(environment, RepositoryEnvironment)
    environment.reset(tasks.held_out()[0])
    return environment


def said(step: EnvironmentStep) -> str:
    return "\n".join(message.content for message in step.messages)


def test_a_tree_holds_every_file_as_it_is_whatever_its_attributes_and_ignores_say(tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {**FILES, ".gitignore": b"*.log\n", "kept.log": b"x", "raw.bin": bytes(range(256)), "name with ä.txt": b"\xff\r\n"}
    for path, content in files.items():
        (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / path).write_bytes(content or b"")
    os.chmod(tmp_path / "source" / "dos.txt", 0o755)
    store = GitStore(folder=tmp_path / "store.git")
    tree = store.from_folder(tmp_path / "source")
    assert {path: store.read(tree, path) for path in store.paths(tree)} == files
    changed = store.with_files(tree, {"dos.txt": b"c\r\n", "kept.log": None, "new/file.py": b"n = 1\n"})
    assert store.changed(tree, changed) == ["dos.txt", "kept.log", "new/file.py"]
    assert store.apply(tree, store.diff(tree, changed)) == changed
    assert store.apply(changed, store.diff(changed, tree)) == tree
    assert store.with_files_of(changed, tree, ["dos.txt", "kept.log", "new/file.py"]) == tree
    assert "100755" in store.git("ls-tree", changed, "dos.txt")
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(store.archive(tree))) as archive:
        assert {m.name: (archive.extractfile(m) or io.BytesIO()).read() for m in archive if m.isfile()} == files
    with pytest.raises(GitError):
        store.apply(tree, "--- a/no\n+++ b/no\n@@ -1 +1 @@\n-x\n+y\n")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ".git/config", "sub/.GIT/hooks/x"])
def test_paths_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(InputError, match="no path inside the repository"):
        plain_path(path)
    assert plain_path("./src//x.py ") == "src/x.py"


def test_an_action_is_read_with_or_without_marks_and_thoughts() -> None:
    assert action_in("I look.\n<action>\nview a.py 1-3\n</action> more") == Action("view", "a.py 1-3")
    assert action_in("list") == Action("list")
    assert action_in("<action>```\nedit a\nb\n```</action>") == Action("edit", "a", "b")
    for text in ("", "<action></action>", "I would edit", "<action>vew x</action>"):
        with pytest.raises(InputError, match="Expected one of list, search, view, edit, test, submit"):
            action_in(text)


def test_looking_and_editing(tmp_path: Path) -> None:
    store = GitStore(folder=tmp_path / "store.git")
    long = "".join(f"line {i}\n" for i in range(1, 401)).encode()
    tree = store.with_files(None, {**FILES, "long.txt": long, "bin.dat": b"\0"})
    assert listed(store, tree, "tests/").splitlines() == ["tests/conftest.py", "tests/test_clock.py"]
    assert found(store, tree, "* 24") == f"{SOURCE}:2:    return hours * 24"
    assert found(store, tree, "absent [") == "no line holds 'absent ['"
    assert "[340 more lines; search for something rarer]" in found(store, tree, "line ")
    assert viewed(store, tree, f"{SOURCE} 2") == "   2     return hours * 24"
    assert viewed(store, tree, "long.txt").endswith(" 200 line 200\n[200 more lines; view long.txt 201-400 shows the next ones]")

    def edit(path: str, old: str, new: str) -> bytes:
        made, name = edited(store, tree, Action("edit", path, f"<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n"))
        return store.read(made, name)

    assert edit(SOURCE, "    return hours * 24\n", "    return hours * 60\n") == RIGHT
    assert edit(SOURCE, "    return hours * 24\n", "") == b"def minutes(hours):\n"
    assert edit("src/new.py", "", "x = 1\n") == b"x = 1\n"
    for path, old, new, complaint in [
        ("src/clock.py", "x\n", "y\n", "there is no file 'src/clock.py'"),
        (SOURCE, "return hours * 24\nx\n", "", "occurs 0 times in .*its first line is line 2"),
        (SOURCE, "        return hours * 24\n", "", "indented otherwise"),
        ("dos.txt", "b\n", "b\n", "occurs 0 times"),
        ("long.txt", "line 1", "", "has not the expected form"),
        ("long.txt", "line 40\n", "line 40\n", "nothing was changed"),
        ("long.txt", "\n", "", "is there already"),
        ("dos.txt/x", "", "x\n", "cannot be made"),
        ("bin.dat", "x\n", "y\n", "is a binary file"),
    ]:
        with pytest.raises(InputError, match=complaint):
            edit(path, old, new)


@needs_bwrap
def test_an_episode_that_mends_the_fault(tasks: RepositoryTasks) -> None:
    environment = begun(tasks)
    tested = environment.step("<action>test</action>")
    assert "1 passed" in said(tested)
    assert (tested.info["tests_passed"], tested.info["tests_failed"], tested.reward) == (1, 0, 0.0)
    before = environment.snapshot()
    assert said(environment.step(EDIT)) == f"{SOURCE} is changed"
    refused = environment.step("<action>edit ../../x\n</action>")
    assert (refused.info["tool_errors"], said(refused).startswith("Error: "), "[3 turns left]" in said(refused)) == (1, True, True)
    done = environment.step("submit")
    assert (done.reward, done.done, done.info["correct"]) == (1.0, True, 1.0)
    assert done.info[EPISODE_TAGS] == {
        **{"edited_files": [SOURCE], "edits": 1, "test_runs": 1, "invalid_actions": 1, "empty_patch": False, "protected_files": [], "forged": False}
    }
    environment.restore(before)
    left = environment.step("submit")
    assert (left.reward, left.info[EPISODE_TAGS]["empty_patch"]) == (0.0, True)


@needs_bwrap
def test_a_lesson_carries_out_the_solution(tasks: RepositoryTasks) -> None:
    (task,) = tasks.held_out()
    lesson = tasks.conversation(task, 0) or ()
    turns = [message.content for message in lesson if message.role == "assistant"]
    assert turns == [f"<action>{action}</action>" for action in (f"view {SOURCE} 1-7", EDIT, "test", "submit")]
    environment = begun(tasks)
    steps = [environment.step(turn) for turn in turns]
    assert [m for step in steps for m in step.messages] == [m for m in lesson if m.role == "user"][1:]
    assert steps[-1].reward == 1.0


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
def test_replacements_of_unique_texts_make_one_text_of_another(before: list[str], after: list[str]) -> None:
    old, new = ("".join(f"{line}\n" for line in lines) for lines in (before, after))
    text, steps = old, replacements(old, new)[1]
    for gone, instead in steps:
        assert not gone or occurrences(text, gone) == 1
        text = text.replace(gone, instead, 1) if gone else instead
    assert text == new


@needs_bwrap
def test_every_turn_is_answered_whatever_it_holds(tasks: RepositoryTasks) -> None:
    for text in ("", "search a\0b", "search \ud800", "view \0", "edit x", "test -k secret", "test nowhere.py::test_x", "list ..", "<action>", "search (["):
        step = begun(tasks).step(text)
        said(step).encode()
        assert said(step).startswith("Error: ") == bool(step.info["tool_errors"])
        assert not step.done
    unjudged = begun(tasks)
    instance = tasks.instance(tasks.held_out()[0])
    tasks._instances[instance.id] = replace(instance, test_patch="--- a/no\n+++ b/no\n@@ -1 +1 @@\n-x\n+y\n")
    with pytest.raises(InputError, match=r"line 1: test_patch of 'clock-1' does not fit its base commit"):
        unjudged.reset(tasks.held_out()[0])
    tasks._instances[instance.id] = instance


@needs_bwrap
def test_what_decides_is_shown_to_nobody(tasks: RepositoryTasks) -> None:
    environment = begun(tasks)
    seen = repr(tasks.held_out()) + "".join(said(environment.step(text)) for text in ("list", "search secret", "search 120", f"view {TESTS}", "test"))
    assert "secret" not in seen.replace("search secret", "").replace("no line holds 'secret'", "")
    assert "120" not in seen.replace("no line holds '120'", "")
    assert tasks.instance(tasks.held_out()[0]).patch not in seen


@needs_bwrap
@pytest.mark.parametrize(
    ("path", "old", "new", "forged", "protected"),
    [
        # Tests are put back: neither deleting what fails nor a conftest that deselects it helps.
        ("tests/conftest.py", "", "def pytest_collection_modifyitems(items):\n    items.clear()\n", False, True),
        ("conftest.py", "", "import pytest\n@pytest.hookimpl\ndef pytest_runtest_call(item):\n    item.obj = lambda: None\n", False, True),
        # Code that patches pytest makes the test pass that has to fail.
        (SOURCE, WRONG.decode(), WRONG.decode() + "import _pytest.python\n_pytest.python.Function.runtest = lambda self: None\n", True, False),
        # Code that ends the process leaves no result.
        (SOURCE, WRONG.decode(), WRONG.decode() + "import os\nos._exit(0)\n", False, False),
    ],
)
def test_ways_around_the_tests_are_worth_nothing(tasks: RepositoryTasks, path: str, old: str, new: str, forged: bool, protected: bool) -> None:
    store, start = tasks.start_of(tasks.held_out()[0])
    tree = store.with_files(start, {path: (new if not old else store.read(start, path).decode().replace(old, new)).encode()})
    judged = tasks.judge(tasks.held_out()[0], tree)
    assert (judged.resolved, judged.forged, bool(judged.protected)) == (False, forged, protected)


def test_every_test_that_decides_has_to_pass() -> None:
    fail, keep = tuple(f"t.py::f{i}" for i in range(2)), tuple(f"t.py::k{i}" for i in range(4))
    instance = Instance("i", "r", "c", "", "", "p", fail, keep)

    def judged(complete: bool = True, **others: str) -> tuple[bool, float, float]:
        outcomes = {test: others.get(test[-2:], "passed") for test in (*fail, *keep)}
        found = counted(instance, TestReport(outcomes, complete=complete))
        return found.resolved, found.fail_to_pass, found.pass_to_pass

    assert judged() == (True, 1.0, 1.0)
    assert judged(f1="failed") == (False, 0.5, 1.0)
    assert judged(k0="skipped") == (False, 1.0, 0.75)
    assert judged(f0="error", k1="failed", k2="missing") == (False, 0.5, 0.5)
    assert judged(complete=False) == (False, 0.0, 0.0)


def test_a_run_of_tests_is_shown_without_what_varies_and_cut_in_the_middle() -> None:
    printed = "E  <Clock object at 0x7f3a2b1c9d00>\n3 failed in 0.12s\n" + "x" * 500
    report = report_of(Result("ok", printed, json.dumps({"outcomes": {"t.py::a": "failed"}, "messages": {"t.py::a": "got <A at 0x55d0c0ffee00>"}})))
    assert (report.complete, report.failed, report.messages) == (True, ["t.py::a"], {"t.py::a": "got <A at 0x...>"})
    text = shown(report, 300)
    assert text.startswith("E  <Clock object at 0x...>\n3 failed\nxxx")
    assert "left out" in text
    assert len(text) < 360
    for forged in ("no json", "1 +", "[]", '{"outcomes": 3}', "[" * 200_000, "-" * 200_000 + "1"):
        assert not report_of(Result("ok", printed, forged)).complete


@needs_bwrap
def test_swebench_files_over_clones_patches_at_one_go_and_states_of_other_processes(bank: Path, tasks: RepositoryTasks, tmp_path: Path) -> None:
    environment = begun(tasks)
    environment.step(EDIT)
    state = json.loads(json.dumps(environment.snapshot()))
    store = GitStore(bank / "repositories" / "toy__clock.bundle")
    store.git("clone", "-q", str(bank / "repositories" / "toy__clock.bundle"), str(tmp_path / "toy__clock"), own=False)
    again = load_tasks(f"swebench:{bank / 'tasks.jsonl'},{tmp_path}:workers=1")
    assert isinstance(again, RepositoryTasks)
    (task,) = again.held_out()
    patch = read_instances(bank / "tasks.jsonl")[0].patch
    assert again.verify(task, "I do not know") == {"correct": 0.0, "applies": 0.0}
    # This store has never seen the tree of the state: it is made again from the patch.
    assert not again.start_of(task)[0].has(state["tree"])
    elsewhere = begun(again)
    elsewhere.restore(state)
    assert (elsewhere.tree, elsewhere.patch) == (environment.tree, patch)
    with pytest.raises(InputError, match="expected a snapshot of the same task"):
        elsewhere.restore({**state, "tree": "1" * 40})
    assert again.verify(task, f"Here:\n```diff\n{patch}```\n") == {"correct": 1.0, "applies": 1.0}
    again.close()


def test_missing_clones_commits_and_fields_are_named(bank: Path, tmp_path: Path) -> None:
    row = json.loads((bank / "tasks.jsonl").read_text())
    clones = bank / "repositories"

    def refused(pattern: str, **changes: object) -> None:
        (tmp_path / "t.jsonl").write_text(json.dumps({name: value for name, value in {**row, **changes}.items() if value is not None}) + "\n")
        with pytest.raises(InputError, match=pattern):
            load_tasks(f"swebench:{tmp_path / 't.jsonl'},{clones}")

    refused(r"line 1: there is no clone of toy/other .*git clone URL toy__other", repo="toy/other")
    refused(r"line 1: toy/clock has no commit '1{40}' here, which 'clock-1' starts from; fetch it", base_commit="1" * 40)
    refused(r"line 1: no 'test_patch'; expected the fields of SWE-bench", test_patch=None)
    refused(r"FAIL_TO_PASS: the test 'test_x \(a.B\)' is no pytest node id", FAIL_TO_PASS=["test_x (a.B)"])
    refused(r"FAIL_TO_PASS is empty", FAIL_TO_PASS="[]")
    refused(r"expected owner/name", repo="../clock")
    with pytest.raises(InputError, match=r"there is no .*tasks.jsonl; expected a folder made by"):
        load_tasks(f"repos:{tmp_path / 'none'}")
    with pytest.raises(InputError, match="'speed=3' is no setting"):
        load_tasks(f"repos:{bank}:speed=3")
