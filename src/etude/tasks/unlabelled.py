"""Tasks of which some or all have no reference answer, for methods that learn without."""

from __future__ import annotations

import math
from collections.abc import Mapping

from etude.tasks.around import Around
from etude.tasks.base import TaskSet
from etude.types import Task, Trajectory


class PartlyLabelled(Around):
    """A task set whose tasks may lack a reference answer. An attempt at one that does is not judged: its `correct` is NaN, which means unscorable."""

    def labelled(self) -> list[Task]:
        """Held-out tasks that have a reference answer."""
        return [task for task in self.held_out() if task.answer is not None]

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        # By this set's verdict on the last turn, and not by the inner one's.
        return TaskSet.verify_trajectory(self, trajectory)

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": math.nan} if task.answer is None else self.tasks.verify(task, text)
