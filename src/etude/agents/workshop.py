"""Places where an agent works: a task with hidden tests, and any other files, its own code among them."""

from __future__ import annotations

from collections.abc import Callable

from etude.errors import InputError
from etude.tasks.repos.actions import action_in, carried_out
from etude.tasks.repos.environment import RepositoryEnvironment, plain_text
from etude.tasks.repos.store import GitError, GitStore
from etude.types import Task


class TaskPlace:
    """A software task. Hidden tests decide when the work is handed in; the verdict stays here."""

    def __init__(self, environment: RepositoryEnvironment, task: Task) -> None:
        self._environment = environment
        self.opening = "\n\n".join(message.content for message in environment.reset(task))
        self.solved = False

    def step(self, text: str) -> tuple[str, bool]:
        step = self._environment.step(text)
        if step.done:
            self.solved = bool(step.reward)
        return "\n".join(message.content for message in step.messages), step.done

    @property
    def patch(self) -> str:
        """What was changed."""
        return self._environment.patch


class Workshop:
    """Files that an agent edits with the same actions. `test` runs a check of this side; what is handed in is the tree.

    check: what is to be said of a version of the files when the agent runs `test`. turns: actions at most; then the work counts as handed in.
    """

    def __init__(self, store: GitStore, tree: str, opening: str, check: Callable[[str], str], turns: int) -> None:
        self.store, self.tree, self.opening, self.check, self.left = store, tree, opening, check, turns
        self.note = ""
        """What stood behind `submit`."""

    def step(self, text: str) -> tuple[str, bool]:
        self.left -= 1
        try:
            action = action_in(plain_text(text))
            if action.verb == "submit":
                self.note = " ".join(action.argument.split())[:100]
                return "", True
            if action.verb == "test":
                said = self.check(self.tree)
            else:
                said, self.tree, _ = carried_out(self.store, self.tree, action)
        except (InputError, GitError) as error:
            said = f"Error: {error}"
        return plain_text(said), self.left <= 0
