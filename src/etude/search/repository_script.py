"""A scripted agent and judge for software tasks: they know where the fault is and how it is mended, and are right as often as their numbers say.

For trying a search with real repositories, edits and runs of tests before a model costs anything. The script knows the solution, so that what it solves says nothing of any
model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from etude.errors import InputError
from etude.search.actions import kind_of, stated_action
from etude.tasks.repos.faults import faults
from etude.tasks.repos.lessons import replacements, solution_actions
from etude.tasks.repos.store import GitError
from etude.tasks.repos.tasks import RepositoryTasks
from etude.types import Task

TEST, SUBMIT = "<action>test</action>", "<action>submit</action>"
AROUND = 20
"""Lines before and after a place that a look at it shows."""


@dataclass(frozen=True)
class Known:
    """Turns about one task: the look at the right place and the edit there, and wrong ones."""

    look: str
    edit: str
    wrong_looks: tuple[str, ...]
    wrong_edits: tuple[str, ...]


@dataclass
class RepositoryScript:
    """An agent that looks at the right place in a quarter of the draws, makes the right edit in 35 %, and runs tests before it hands in in 60 %; wrong edits are other
    single faults in the same file. The judge without noise says 65 of the right look, 75 of the right edit and its tests, 5 of wrong looks, 20 of wrong edits, and of what is
    handed in 100, or -20 and 20 more for the right look."""

    tasks: RepositoryTasks
    right_look: float = 0.25
    right_edit: float = 0.35
    tests: float = 0.6

    def __post_init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._known: dict[str, Known] = {}

    def learn(self, tasks: Sequence[Task]) -> None:
        """Tasks that it is to know. Raises InputError for one whose solution is no single edit."""
        for task in tasks:
            self._tasks[task.opening[0].content] = task
            self._known[task.id] = self._of(task)

    def task(self, words: str) -> Task:
        if words not in self._tasks:
            raise InputError(f"the script does not know the task {words[-80:]!r}; expected one that it was told of")
        return self._tasks[words]

    def options(self, task: Task, actions: Sequence[str]) -> Mapping[str, float]:
        known = self._known[task.id]
        edits = [action for action in actions if kind_of(action) == "edit"]
        if edits:
            return {SUBMIT: 1.0} if kind_of(actions[-1]) == "test" else {TEST: self.tests, SUBMIT: 1 - self.tests}
        rest = (1 - self.right_edit) / len(known.wrong_edits)
        if stated_action(known.look) in actions:
            return {known.edit: self.right_edit, **dict.fromkeys(known.wrong_edits, rest)}
        if actions:
            return {known.look: self.right_look, **dict.fromkeys(known.wrong_edits, (1 - self.right_look) / len(known.wrong_edits))}
        return {known.look: self.right_look, **dict.fromkeys(known.wrong_looks, (1 - self.right_look) / len(known.wrong_looks))}

    def worth(self, task: Task, actions: Sequence[str]) -> float:
        known = self._known[task.id]
        edits = [action for action in actions if kind_of(action) == "edit"]
        looked, mended = stated_action(known.look) in actions, edits == [stated_action(known.edit)]
        if kind_of(actions[-1]) == "finish":
            return 100.0 if mended else -20.0 + 20.0 * looked
        if edits:
            return 75.0 if mended else 20.0
        return 65.0 if looked else 5.0

    def worth_made(self, task: Task, made: str) -> float:
        store, start = self.tasks.start_of(task)
        try:
            return 100.0 if store.apply(start, made) == store.apply(start, self.tasks.instance(task).patch) else 0.0
        except GitError:
            return -100.0

    def _of(self, task: Task) -> Known:
        store, start = self.tasks.start_of(task)
        turns = solution_actions(store, start, self.tasks.instance(task).patch) or []
        edits = [turn for turn in turns if kind_of(stated_action(turn)) == "edit"]
        looks = [turn for turn in turns if kind_of(stated_action(turn)) == "look"]
        if len(edits) != 1 or len(looks) != 1:
            raise InputError(
                f"the scripted agent can't act in task {task.id!r}, whose solution is {len(edits)} edits; expected one edit, as in a bank of single faults"
            )
        path = stated_action(looks[0]).split()[1]
        source = store.read(start, path)
        lines = source.count(b"\n") + 1
        random = Random(f"scripted {task.id}")
        others = [other for other in store.paths(start) if other.endswith(".py") and other != path]
        wrong_looks = [f"<action>view {other} 1-{2 * AROUND}</action>" for other in random.sample(others, min(2, len(others)))]
        place = random.randrange(1, max(2, lines - AROUND))
        wrong_looks += [f"<action>view {path} {place}-{place + AROUND}</action>"]
        found = faults(source)
        wrong = [_edit(path, source.decode(), fault.applied(source).decode()) for fault in random.sample(found, min(3, len(found)))]
        wrong_edits = [turn for turn in wrong if turn is not None and stated_action(turn) != stated_action(edits[0])][:2]
        if not wrong_edits:
            raise InputError(f"the scripted agent finds nothing to do wrong in task {task.id!r}; expected Python source with functions")
        return Known(looks[0], edits[0], tuple(wrong_looks), tuple(wrong_edits))


def _edit(path: str, before: str, after: str) -> str | None:
    """The turn that makes one text of another; None where it takes several."""
    _, steps = replacements(before, after)
    if len(steps) != 1:
        return None
    old, new = steps[0]
    return f"<action>edit {path}\n<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE</action>"
