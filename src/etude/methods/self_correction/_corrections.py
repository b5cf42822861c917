"""What imitation of corrections has in common: rounds of two attempts or more, of which some become examples of how to mend a mistake."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from etude.config import Count
from etude.curation import capped
from etude.curation.examples import ORIGIN
from etude.evals.revision import revised
from etude.iterated import IteratedConfig, IteratedImitation
from etude.tasks.revisions import request_between_attempts
from etude.types import Metrics, Task, Trajectory, mean, trajectories_of


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
