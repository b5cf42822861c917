"""Methods that search and update no weights: one step is some iterations of a search, and its trees are the whole state.

They share the run with all other methods: budgets (`--budget 600-evaluations`, `50k-tokens`, `200-calls`), checkpoints, resuming, the ledger, the report. What is
searched is up to the method: an archive of agents, or the tasks of a task set, a tree each. `etude search METHOD` runs them.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from etude.config import NO_STEP_LIMIT, AtLeastOne, TrainConfig
from etude.durable import json_safe, replace_file
from etude.method import Method, State
from etude.run import Run
from etude.types import Metrics

SEARCH = "search.json"
"""File in a run's folder with the trees as they are now, for the report and for whoever wants to look."""


@dataclass
class SearchConfig:
    """What every search can be told; methods add their own fields."""

    iterations: AtLeastOne = 10
    """Iterations of the search in a step of the run: what is done between two lines of the log."""
    parallel: AtLeastOne = 1
    """Iterations under way at once. Each is chosen knowing all but the last ones before it, so that a repeated search is the same search."""


class SearchMethod(Method):
    """A search. Overrides say how to begin (`setup`), what iterations do, and what is saved and shown."""

    score_key = "eval/success"
    # Budget and `done` end a search; what it settled on, it settled on by what it saw, and not by the held-out score.
    defaults: ClassVar[Mapping[str, Any]] = {"steps": NO_STEP_LIMIT, "checkpoint_every": 1, "export": "last"}

    def __init__(self, config: TrainConfig[Any], run: Run) -> None:
        super().__init__(config.method, run)
        self.inputs = config.inputs
        self.on_change: Callable[[], None] | None = None
        """Called in the searching thread whenever the trees have changed, for whoever shows them."""

    @abstractmethod
    def iterate(self, count: int) -> Metrics:
        """Do some iterations, or fewer where the budget is spent (`room`) or nothing is left to do. Calls `changed` as the trees change."""

    @abstractmethod
    def records(self) -> Sequence[Mapping[str, Any]]:
        """The trees worth showing, as `etude.search.record.tree_record` gives them."""

    @abstractmethod
    def plain_search(self) -> dict[str, Any]:
        """The search as plain JSON values."""

    @abstractmethod
    def restore_search(self, plain: Mapping[str, Any]) -> None:
        """Go back to what `plain_search` gave."""

    def changed(self) -> None:
        """Tell whoever shows the trees."""
        if self.on_change is not None:
            self.on_change()

    def room(self, evaluations: int = 0) -> bool:
        """Whether the budget allows another evaluation besides those in flight. Other units are known only afterwards, and may be overspent by what is in flight."""
        budget = self.run.budget
        if budget is None:
            return True
        ahead = self.run.ledger.copy()
        ahead.task_evaluations += evaluations
        return budget.spent(ahead) < 1

    def step(self) -> Metrics:
        metrics = self.iterate(self.config.iterations)
        self.write_trees(self.run.folder)
        self.changed()
        return metrics

    def state(self) -> State:
        return State(plain={"search": self.plain_search()})

    def load_state(self, state: State) -> None:
        self.restore_search(state.plain["search"])

    def export(self, folder: Any) -> None:
        """The trees; methods add what they settled on."""
        self.write_trees(Path(folder))

    def write_trees(self, folder: Path) -> None:
        """Write `search.json` into a folder."""
        content = json_safe({"step": self.run.step, "trees": list(self.records())})
        replace_file(folder / SEARCH, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
