"""What imitation of corrections has in common: rounds of two attempts or more, of which some become examples of how to mend a mistake."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.claim import Precondition
from etude.config import Count
from etude.curation import capped
from etude.curation.examples import ORIGIN
from etude.evals.measures import Final
from etude.evals.revision import revised
from etude.iterated import IteratedConfig, IteratedImitation
from etude.tasks.revisions import request_between_attempts
from etude.types import Metrics, Task, Trajectory, mean, trajectories_of

FROM_COPIES: Mapping[str, Any] = {
    "tasks": "check-and-fix:pool=128",
    "skill_tasks": "check-and-fix:slips=0",
    "skill_steps": 160,
    "skill_lr": 2e-3,
    "skill_schedule": "linear",
    "warm_tasks": "check-and-fix:copies=0.8,misses=0.5,slips=0",
    "warm_steps": 40,
    "warm_tasks_per_step": 32,
    "warm_lr": 5e-4,
    "warm_schedule": "linear",
    "lr": 3e-4,
    "eval_tasks": 256,
    "eval_samples": 1,
    "eval_temperature": 0.0,
    "evaluate_every": 0,
}
"""Settings that claims about second looks share: a start that was taught to check and then to repeat its answers, a pool of problems, and greedy measurement."""
QUICK_START: Mapping[str, Any] = {
    "skill_steps": 1,
    "skill_tasks_per_step": 8,
    "warm_steps": 1,
    "warm_tasks_per_step": 8,
    "tasks_per_step": 2,
    "group_size": 4,
    "eval_tasks": 8,
}
"""The same, reduced."""


def repeats_itself(arm: str) -> tuple[Precondition, ...]:
    """That the start of an arm repeats its answers, gains little by a second look, and can check them all the same."""
    return (
        Precondition("a second look adds little yet", arm, Final("delta_first"), at_most=0.1, otherwise="the start corrects itself already"),
        Precondition("the start repeats its answers", arm, Final("changed_first"), at_most=0.25, otherwise="the start changes many of its answers"),
        Precondition("the start can check", arm, Final("worked_first"), at_least=0.7, otherwise="the checks that the start writes are often wrong"),
    )


@dataclass
class CorrectionConfig(IteratedConfig):
    """Options of methods that imitate corrections."""

    keep_right: bool = False
    """Imitate right attempts after right ones too, so that right answers are left alone (the paper's variants with a plus)."""
    keep_per_task: Count = 10
    """Examples of one task at most, drawn at random (0: all)."""


class ImitatedCorrections(IteratedImitation):
    """Differs from ReST-EM in that episodes have several attempts, of which the last one alone is learnt. A method says which ones, in `corrected`."""

    config: CorrectionConfig

    def setup(self) -> None:
        super().setup()
        request_between_attempts(self.task_set, self.card.name)

    @abstractmethod
    def corrected(self, episodes: Sequence[Trajectory]) -> list[Trajectory]:
        """The examples in some judged episodes."""

    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        groups, metrics = self.attempted(tasks)
        episodes = trajectories_of(groups)
        kept = capped(self.corrected(episodes), self.config.keep_per_task, self.run.rng("kept", self.round))
        metrics |= {f"revision/{name}": value for name, value in revised(episodes, self.task_set.answer_in).items()}
        of_mistakes = mean([float(t.tags[ORIGIN]["kind"] == "correction") for t in kept], 0.0)
        return kept, metrics | {"round/tasks_kept": float(len({t.task.id for t in kept})), "round/corrections": of_mistakes}
