"""Coding agents that edit themselves: what they may say, what keeps a change from being one, and whole searches with a scripted model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from chat_server import serving
from sandbox.test_jail import needs_bwrap

import etude
from etude.agents import opening
from etude.agents.code import STARTING_AGENT, agent_of, difference, files_in, read_agent, sizes, tree_of
from etude.agents.gate import faults_of
from etude.agents.runs import Refusal, RunLog, run_agent
from etude.agents.scripted import CHANGES, EDITING, scripted_agent_model
from etude.agents.workshop import Workshop
from etude.agents.world import CodingAgents
from etude.errors import InputError
from etude.experiments.self_editing_agents import StudySettings, one_search, study
from etude.ledger import Ledger
from etude.models.replies import Reply
from etude.models.responders import Asked
from etude.models.sampling import SamplingParams
from etude.run import Run, without_time
from etude.sandbox.jail import JailSandbox
from etude.sandbox.programs import program_limits
from etude.search.archive import Failure, History
from etude.searching import SEARCH
from etude.tasks.repos import GitStore, RepositoryTasks
from etude.types import Message

ROOT = read_agent(STARTING_AGENT)["files"]
SECRET = "assert minutes(2) == 120"
EDIT = "<action>\nedit a.txt\n<<<<<<< SEARCH\none\n=======\ntwo\n>>>>>>> REPLACE\n</action>"
QUIET: dict[str, Any] = {"quiet": True, "warm_up": 2, "budget": "4-evaluations", "iterations": 2, "evaluate_every": 0}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of three small tasks, one of them held out."""
    folder = tmp_path_factory.mktemp("bank")
    store = GitStore(folder=folder / "work.git")
    rows = []
    for i, factor in enumerate((24, 30, 61)):
        files: dict[str, bytes | None] = {"clock.py": b"def minutes(hours):\n    return hours * %d\n" % factor, "test_clock.py": TEST.encode()}
        start = store.with_files(None, files)
        commit = store.commit(start, f"task {i}")
        store.git("update-ref", f"refs/tasks/{i}", commit)
        right = store.with_files(start, {"clock.py": b"def minutes(hours):\n    return hours * 60\n"})
        hidden = store.with_files(start, {"test_hidden.py": f"from clock import minutes\n\n\ndef test_two():\n    {SECRET}\n".encode()})
        rows.append(
            {
                **{"instance_id": f"clock-{i}", "repo": "clock", "base_commit": commit, "problem_statement": f"minutes(1) is {factor}"},
                **{"patch": store.diff(start, right), "test_patch": store.diff(start, hidden), "split": "test" if i == 2 else "train"},
                **{"FAIL_TO_PASS": ["test_hidden.py::test_two", "test_clock.py::test_one"], "PASS_TO_PASS": ["test_clock.py::test_none"]},
            }
        )
    (folder / "repositories").mkdir()
    store.git("bundle", "create", "-q", str(folder / "repositories" / "clock.bundle"), *(f"refs/tasks/{i}" for i in range(3)))
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


TEST = "from clock import minutes\n\n\ndef test_none():\n    assert minutes(0) == 0\n\n\ndef test_one():\n    assert minutes(1) == 60\n"


@pytest.fixture(scope="module")
def jail() -> Iterator[JailSandbox]:
    with JailSandbox(program_limits(seconds=2.0), workers=1) as made:
        yield made


def worked(jail: JailSandbox, program: str, answers: Sequence[str] = ()) -> tuple[RunLog, dict[str, str]]:
    """The log of an agent that is one file, which a model gives these answers, and the files that it leaves."""
    store, left = GitStore(), iter(answers)

    def ask(messages: tuple[Message, ...], tokens: int | None, stop: tuple[str, ...]) -> str:
        answer = next(left, None)
        if answer is None:
            raise Refusal("the conversation is too long")
        return answer

    shop = Workshop(store, tree_of(store, {"a.txt": "one\n"}), "change it", lambda tree: "fine", turns=9)
    log = run_agent(jail, {"main.py": program}, "solve", shop, ask, calls=2)
    return log, files_in(store, shop.tree)


@needs_bwrap
def test_an_agent_has_three_requests_and_everything_else_is_an_error_that_it_is_told(jail: JailSandbox) -> None:
    wants = [
        "{'want': 'model', 'messages': [{'role': 'user', 'content': 'hi'}]}",
        "{'want': 'action', 'text': last['text']}",
        "{'want': 'model', 'messages': [{'role': 'root', 'content': 'hi'}]}",
        "{'want': 'model', 'messages': []}",
        "{'want': 'model', 'messages': [{'role': 'user', 'content': 'hi'}]}",
        "{'want': 'model', 'messages': [{'role': 'user', 'content': 'hi'}]}",
        "{'want': 'tests'}",
        "7",
        "{'want': 'action', 'text': 'view /etc/passwd'}",
        "{'want': 'action', 'text': 'submit done'}",
        "{'want': 'action', 'text': 'list'}",
    ]
    program = "import json, sys\n" + "".join(f"print(json.dumps({want}), flush=True)\nlast = json.loads(sys.stdin.readline())\n" for want in wants)
    log, files = worked(jail, program, [EDIT])
    assert files == {"a.txt": "two\n"}
    assert (log.calls, log.actions, log.handed_in) == (2, 2, True)
    told = [entry for entry in log.entries if entry.startswith(("[error]", "[result] Error"))]
    said = ["expected a role", "no list of messages", "too long", "all 2 calls", "'want' is 'tests'", "no JSON object", "no path inside", "is handed in"]
    assert [words in entry for words, entry in zip(said, told, strict=True)] == [True] * len(said)


@needs_bwrap
def test_what_an_agent_leaves_when_it_crashes_is_handed_in(jail: JailSandbox) -> None:
    program = f"import json\nprint(json.dumps({{'want': 'action', 'text': {EDIT!r}}}), flush=True)\ninput()\nraise RuntimeError('tired')\n"
    log, files = worked(jail, program)
    assert files == {"a.txt": "two\n"}
    assert "RuntimeError: tired" in log.text
    assert "handed in as it was" in log.text


@needs_bwrap
def test_the_gate_lets_through_what_works_and_says_what_does_not(jail: JailSandbox) -> None:
    store = GitStore()
    assert faults_of(jail, store, ROOT) == ""
    for path, old, new, said in (
        ("solve.py", "for _", "for for", "SyntaxError"),
        ("solve.py", "act(said)", "act(sad)", "NameError"),
        ("config.json", '"edit_turns": 4', '"edit_turns": 0', "did not ask the model"),
        ("solve.py", "act(said)", 'act("list")', "not mended"),
        ("host.py", "print(json", 'print("hello"); print(json', "no JSON"),
    ):
        assert said in faults_of(jail, store, {**ROOT, path: ROOT[path].replace(old, new)})
    assert "expected main.py" in faults_of(jail, store, {"solve.py": "x"})


@needs_bwrap
def test_every_change_of_the_script_fits_the_starting_agent_or_another_change_and_passes_the_gate(jail: JailSandbox) -> None:
    # All that can be made of it, one on top of the other: the agent with every change still works.
    files, made = dict(ROOT), set[str]()
    while fitting := [change for change in CHANGES if change.name not in made and change.fits(files)]:
        change = fitting[0]
        for path, old, new in change.steps:
            files[path] = files[path].replace(old, new)
        made.add(change.name)
    assert {change.name for change in CHANGES} - made == {"signs-4", "names-4", "names-12"}
    assert faults_of(jail, GitStore(), files) == ""


def test_files_and_differences() -> None:
    after = {**ROOT, "config.json": "{}\n", "new.txt": "a\nb\n"}
    store = GitStore()
    assert files_in(store, tree_of(store, after)) == dict(sorted(after.items()))
    assert sizes(ROOT, after) == "config.json +1 -4, new.txt +2 -0"
    assert '-  "edit_turns": 4' in difference(ROOT, after)
    assert difference(ROOT, ROOT) == ""
    with pytest.raises(InputError, match="characters together"):
        agent_of({"main.py": "x" * 300_000})


class Repairs:
    """A model that breaks the agent's code at first, and mends it when it is told to."""

    def replies(self, asked: Sequence[Asked], params: SamplingParams, **_: Any) -> list[list[Reply]]:
        said = [message.content for message in asked[0].messages]
        broken = "def solve(task):\n    not_there()\n"
        if len(said) > 2 and "edit again" in said[-1]:
            text = action(f"edit solve.py\n<<<<<<< SEARCH\n{broken}=======\ndef solve(task):  # mended\n>>>>>>> REPLACE")
        elif "is changed" in said[-1]:
            text = action("submit a comment")
        else:
            text = action(f"edit solve.py\n<<<<<<< SEARCH\ndef solve(task):\n=======\n{broken}>>>>>>> REPLACE")
        return [[Reply(text, 10.0, True, 20.0)]]

    def fits(self, messages: Sequence[Message], new_tokens: int) -> bool:
        return True

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        raise NotImplementedError


@needs_bwrap
def test_an_agent_that_checks_its_changes_makes_one_where_another_loses_it(bank: Path) -> None:
    checks = dict(ROOT)
    for change in EDITING:
        for path, old, new in change.steps:
            checks[path] = checks[path].replace(old, new)
    world = CodingAgents(RepositoryTasks.from_bank(str(bank)), Repairs(), opening.AgentOptions())
    world.ledger = Ledger()
    try:
        lost = world.mutate(agent_of(ROOT), History(failures=["it was broken before"]), Random(0))
        made = world.mutate(agent_of(checks), History(), Random(0))
    finally:
        world.close()
    assert isinstance(lost, Failure)
    assert "NameError: name 'not_there' is not defined" in lost.log
    assert "+    not_there()" in lost.log
    assert not isinstance(made, Failure)
    assert made["files"] == {**checks, "solve.py": checks["solve.py"].replace("def solve(task):", "def solve(task):  # mended")}
    assert world.describe(made) == "a comment"
    # Two answers of the one, four of the other.
    assert (world.ledger.model_calls, world.ledger.generated_tokens, world.ledger.environment_steps) == ({"editor": 6}, 60, 7)


def action(text: str) -> str:
    return f"<action>\n{text}\n</action>"


@needs_bwrap
def test_one_search_of_the_study(bank: Path) -> None:
    tasks = RepositoryTasks.from_bank(str(bank))
    world = CodingAgents(tasks, opening.scripted_responder(tasks, skill=50.0, editing=50.0), opening.AgentOptions())
    try:
        found = one_search(world, "flat", 0, 3)
    finally:
        world.close()
    # Both tasks of the root, a change of it, and a trial of that.
    assert (found["trials"], found["changes"], found["failed"], found["success"]) == (3, 1, 0, 1)
    with pytest.raises(InputError, match=r"no rule 'hgn'\. Did you mean hgm"):
        study(StudySettings(rules=("hgn",)))


def test_the_scripted_model_knows_no_more_than_it_is_shown(bank: Path) -> None:
    tasks = RepositoryTasks.from_bank(str(bank))
    task = tasks.train_task(0, 0)
    model = scripted_agent_model(tasks, [task], skill=50.0)
    opening_text = task.opening[0].content

    def said(*turns: str) -> str:
        roles = ["user", "assistant"]
        messages = tuple(Message(roles[i % 2], turn) for i, turn in enumerate((opening_text, *turns)))
        return model.replies([Asked("a", messages)], SamplingParams(500), samples=1, key=("k",))[0][0].text

    assert "view clock.py" in said()
    assert "return hours * 60" in said("<action>view clock.py</action>", tasks_view(tasks, task))
    with pytest.raises(InputError, match="is scripted"):
        model.likelihoods([], [])
    tasks.close()


def tasks_view(tasks: RepositoryTasks, task: Any) -> str:
    environment = tasks.environment()
    environment.reset(task)
    return environment.step("<action>view clock.py</action>").messages[0].content


@needs_bwrap
def test_a_search_over_http_is_killed_and_goes_on_and_is_the_same_search(bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = f"agents:{bank}:turns=12"
    etude.train("hgm", out=tmp_path / "whole", tasks=spec, model="scripted:skill=1,editing=-0.5", **QUIET)
    tasks = RepositoryTasks.from_bank(str(bank))
    model = scripted_agent_model(tasks, [*(tasks.train_task(0, i) for i in range(2)), *tasks.held_out()], skill=1, editing=-0.5)
    tasks.close()
    evaluate, calls = CodingAgents.evaluate, iter(range(100))

    def killed(self: CodingAgents, *given: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(self, *given)

    with serving() as server:
        server.reply = model.completion
        remote = {"tasks": spec, "model": "openai:small", "base_url": server.url, **QUIET}
        with monkeypatch.context() as patch:
            patch.setattr(CodingAgents, "evaluate", killed)
            with pytest.raises(KeyboardInterrupt):
                etude.train("hgm", out=tmp_path / "parted", **remote)
        summary = etude.train(resume=tmp_path / "parted")
    assert summary.ledger.model_calls.keys() == {"solver", "editor"}
    whole, parted = Run.open(tmp_path / "whole"), Run.open(tmp_path / "parted")
    assert [without_time(line) for line in parted.metrics()] == [without_time(line) for line in whole.metrics()]
    assert (tmp_path / "parted" / SEARCH).read_text() == (tmp_path / "whole" / SEARCH).read_text()
    # Neither the model nor the agents have seen a hidden test.
    state = json.loads((tmp_path / "parted" / "model" / SEARCH).read_text())
    seen = json.dumps([body for _, body, _ in server.requests]) + json.dumps(state)
    assert "minutes(1) is 24" in seen
    assert SECRET not in seen
    assert "test_hidden" not in seen
    changed = [node["details"] for node in state["trees"][0]["nodes"][1:]]
    assert changed
    assert all(details.startswith("--- a/") for details in changed)


def test_what_is_missing_is_said_before_anything_is_asked(bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**given: Any) -> str:
        with pytest.raises(InputError) as told:
            etude.train("hgm", out=tmp_path / "run", quiet=True, **{"tasks": f"agents:{bank}", "model": "scripted", **given})
        return str(told.value)

    assert "no bank" in refused(tasks="agents:nowhere")
    assert "the agents ask a model" in refused(model="none")
    assert "nothing answers at http://127.0.0.1:9/v1" in refused(model="openai:x", base_url="http://127.0.0.1:9/v1", retries=0)
    assert "tokens is 'many'" in refused(tasks=f"agents:{bank}:tokens=many")
    assert "no setting" in refused(tasks=f"agents:{bank}:speed=3")
    assert "turns: 2" in refused(tasks=f"agents:{bank}:turns=1")
    assert "skill is 'high'" in refused(model="scripted:skill=high")
    assert "no folder" in refused(tasks=f"agents:{bank}:agent={tmp_path / 'nobody'}")
    monkeypatch.setattr(opening.shutil, "which", lambda name: None)
    assert "apt-get install bubblewrap" in refused()
