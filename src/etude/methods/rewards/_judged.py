"""What methods share that ask a model about each attempt: which model it is, when it is asked, and that it survives a crash."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar

from etude.config import JudgeConfig
from etude.method import State
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.rewards.judges import Judge, Judgement, Question, open_judge
from etude.types import Group, Metrics, Trajectory, trajectories_of

KEPT = 8
"""Transcripts that are kept of a step."""
JUDGE = "judge"
"""What the judge's tensors are called by in a checkpoint."""


@dataclass
class JudgedConfig(GRPOConfig):
    """GRPO's options, and the judge's."""

    judging: JudgeConfig = field(default_factory=JudgeConfig)


class WithJudge(GRPO):
    """GRPO with a judge at hand, `judging`, which follows the policy, is saved with the run and closed at its end."""

    Config: ClassVar[type] = JudgedConfig
    config: JudgedConfig
    judging: Judge

    def setup(self) -> None:
        super().setup()
        self.judging = self.open_judge()

    def open_judge(self) -> Judge:
        """Who judges: what the options say."""
        return open_judge(self.config.judging, self.policy, self.run.ledger)

    def update(self, groups: Sequence[Group]) -> Metrics:
        metrics = super().update(groups)
        self.judging.follow()
        return metrics

    def state(self) -> State:
        return super().state().with_part(JUDGE, self.judging.state())

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.judging.load_state(state.part_of(JUDGE))

    def close(self) -> None:
        super().close()
        # A run whose input was refused has none yet.
        if hasattr(self, "judging"):
            self.judging.close()

    def transcripts_wanted(self) -> int:
        """How many of a step are kept."""
        return min(KEPT, self.run.config.save_trajectories)


class Judged(WithJudge):
    """GRPO that asks one question about each attempt. A subclass says which (`question`) and, in `judge`, makes rewards of what `judgements` gives."""

    def setup(self) -> None:
        super().setup()
        self._asked: dict[int, tuple[Trajectory, Future[Judgement]]] = {}

    @abstractmethod
    def question(self, trajectory: Trajectory, stream: int = 0) -> Question | None:
        """What to ask about an attempt, with `stream` as the key of the answer's random numbers; None where nothing is to be asked."""

    def ended(self, trajectory: Trajectory) -> None:
        self._ask(trajectory)

    def judgements(self, groups: Sequence[Group]) -> list[list[Judgement | None]]:
        """The judge's answer to every attempt, in the groups' shape; None where nothing was asked."""
        for trajectory in trajectories_of(groups):
            if id(trajectory) not in self._asked:
                self._ask(trajectory)
        self.judging.settle()
        asked, self._asked = self._asked, {}
        answers = {key: future.result() for key, (_, future) in asked.items()}
        return [[answers.get(id(t)) for t in group.trajectories] for group in groups]

    def keep_transcripts(self, groups: Sequence[Group], judgements: Sequence[Sequence[Judgement | None]], read: Sequence[Sequence[Any]]) -> None:
        """Write some of a step's transcripts to judgements.jsonl. read: what the method made of each judgement, as plain values."""
        rows = [
            {
                "task": t.task.id,
                "prompt": t.task.prompt,
                "attempt": t.text,
                "question": question.messages[-1].content,
                "judgement": j.text,
                "read": value,
                "judge": self.judging.name,
            }
            for group, answers, values in zip(groups, judgements, read, strict=True)
            for t, j, value in zip(group.trajectories, answers, values, strict=True)
            if j is not None and (question := self.question(t)) is not None
        ]
        wanted = self.transcripts_wanted()
        if wanted and rows:
            self.run.save_judgements(self.run.step, rows[:: max(1, len(rows) // wanted)][:wanted])

    def _ask(self, trajectory: Trajectory) -> None:
        stream = self.run.stream(self.run.step, "judge", trajectory.task.id, trajectory.sample, trajectory.text)
        question = self.question(trajectory, stream)
        if question is not None:
            self._asked[id(trajectory)] = trajectory, self.judging.ask(question)
