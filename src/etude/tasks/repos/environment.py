"""One attempt at a software task: actions on a version of a repository, until it is handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.sandbox.base import cut
from etude.tasks.base import EPISODE_TAGS, Environment, EnvironmentStep
from etude.tasks.repos.actions import Action, action_in, carried_out
from etude.tasks.repos.store import GitError, GitStore, plain_path
from etude.tasks.repos.testing import TestReport
from etude.tasks.repos.verdict import with_hidden_tests
from etude.types import Message, Task

if TYPE_CHECKING:
    from etude.tasks.repos.tasks import RepositoryTasks

LAST_TURNS = 3
"""From how many turns before the end on the model is told how many are left."""


@dataclass(slots=True)
class Progress:
    """What was done so far: turns, edits that changed something, files that they touched, runs of tests, and turns that held no action that could be carried out."""

    turns: int = 0
    edits: int = 0
    test_runs: int = 0
    invalid_actions: int = 0
    edited_files: list[str] = field(default_factory=list)

    def copy(self) -> Progress:
        return Progress(**asdict(self))


class RepositoryEnvironment(Environment):
    """A model's actions on a repository. Nothing is done to files of this machine: the state is a git tree, and tests run on a copy in the jail.

    The reward comes at the end, with `submit` or after the last turn: 1 where all tests that decide pass, else 0. `info` of a step with a run of tests has their numbers
    (`tests_passed`, `tests_failed`), of tests that the model can see; nothing comes from the hidden ones before the end.
    """

    def __init__(self, tasks: RepositoryTasks) -> None:
        self._tasks = tasks
        self._task: Task | None = None
        self._tree = ""
        self._progress = Progress()

    @property
    def tree(self) -> str:
        """The version of now, as a git tree id."""
        return self._tree

    @property
    def patch(self) -> str:
        """What was changed since the start."""
        store, start = self._place()
        return store.diff(start, self._tree)

    def reset(self, task: Task) -> Sequence[Message]:
        self._task, self._progress = task, Progress()
        store, self._tree = self._place()
        # A task that nothing could judge is refused before an attempt is made.
        with_hidden_tests(store, self._tasks.instance(task), self._tree)
        return task.opening

    def step(self, text: str) -> EnvironmentStep:
        progress = self._progress
        progress.turns += 1
        info: dict[str, Any] = {"tool_calls": 1, "tool_errors": 0}
        try:
            action = action_in(plain_text(text))
            said = "" if action.verb == "submit" else self._carried_out(action, info)
            done = action.verb == "submit"
        except (InputError, GitError) as error:
            progress.invalid_actions += 1
            said, done, info["tool_errors"] = f"Error: {error}", False, 1
        left = self._tasks.max_turns - progress.turns
        info[EPISODE_TAGS] = {**self._tags()}
        if done or left <= 0:
            return self._handed_in(info)
        reminder = f"\n[{left} turn{'s' if left > 1 else ''} left]" if left <= LAST_TURNS else ""
        return EnvironmentStep((Message("user", plain_text(said) + reminder),), info=info)

    def product(self) -> str:
        return plain_text(self.patch)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain JSON values: the tree, the patch that makes it from the start, and what was done. Another process can go on from it."""
        return {"tree": self._tree, "patch": self.patch, "progress": asdict(self._progress)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a snapshot of the same task. Raises InputError for one of another task."""
        store, start = self._place()
        if not store.has(state["tree"]):
            try:
                made = store.apply(start, state["patch"])
            except GitError as error:
                raise InputError(f"the state does not fit task {self._task and self._task.id!r}: {error}; expected a snapshot of the same task") from error
            if made != state["tree"]:
                raise InputError(
                    f"the state's patch gives another tree than the state on task {self._task and self._task.id!r}; expected a snapshot of the same task"
                )
        self._tree, self._progress = state["tree"], Progress(**state["progress"]).copy()

    def _place(self) -> tuple[GitStore, str]:
        assert self._task is not None, "reset comes first"
        return self._tasks.start_of(self._task)

    def _carried_out(self, action: Action, info: dict[str, Any]) -> str:
        store, _ = self._place()
        if action.verb != "test":
            said, self._tree, path = carried_out(store, self._tree, action)
            if path is not None:
                self._progress.edits += 1
                if path not in self._progress.edited_files:
                    self._progress.edited_files.append(path)
            return said
        report = self._tasks.runner.run(store, self._tree, self._selected(action.argument))
        self._progress.test_runs += 1
        if report.complete:
            info |= {"tests_passed": len(report.passed), "tests_failed": len(report.failed)}
        return shown(report, self._tasks.output)

    def _selected(self, argument: str) -> list[str]:
        """The tests that an action names. Each has to begin with a file or folder of the repository."""
        store, _ = self._place()
        paths, selected = store.paths(self._tree), list[str]()
        for name in argument.split():
            file, colons, rest = name.partition("::")
            path = plain_path(file)
            if not any(other == path or other.startswith(f"{path}/") for other in paths):
                raise InputError(f"there is no test file {file!r}; expected test FILE or test FILE::TEST, or test alone for all")
            selected.append(f"{path}{colons}{rest}")
        return selected

    def _handed_in(self, info: dict[str, Any]) -> EnvironmentStep:
        assert self._task is not None, "reset comes first"
        judged = self._tasks.judge(self._task, self._tree)
        info[EPISODE_TAGS] |= {"protected_files": list(judged.protected), "forged": judged.forged}
        shares = {"fail_to_pass": judged.fail_to_pass, "pass_to_pass": judged.pass_to_pass}
        return EnvironmentStep(reward=float(judged.resolved), done=True, info={**info, **shares, "correct": float(judged.resolved)})

    def _tags(self) -> dict[str, Any]:
        _, start = self._place()
        done = self._progress
        return {
            "edited_files": list(done.edited_files),
            "edits": done.edits,
            "test_runs": done.test_runs,
            "invalid_actions": done.invalid_actions,
            "empty_patch": self._tree == start,
        }


def plain_text(text: str) -> str:
    """A text without what is no Unicode: bytes of a file that is in another encoding, and zeros."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def shown(report: TestReport, limit: int) -> str:
    """What the model is to see of a run of tests: pytest's own words, cut in the middle."""
    return cut(report.output.strip() or "(no output)", limit)
