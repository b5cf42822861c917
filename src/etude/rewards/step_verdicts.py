"""The first bad step of an episode, as a model sees it that judges one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.rewards.judges import Judge, LocalJudge, Question
from etude.tasks.step_judging import StepVerdict, TakenStep, step_question, step_template, step_verdict
from etude.types import Metrics, Task, mean

Asked = tuple[str, tuple[TakenStep, ...]]


@dataclass(frozen=True, slots=True)
class Walk:
    """An episode to be judged: its task, and its steps in order."""

    task: Task
    steps: tuple[TakenStep, ...]


@dataclass
class StepJudge:
    """Asks a model whether a step is good, bad or uncertain.

    step_prompt: how, see `etude.tasks.step_judging.step_template`. transcripts, verdicts: of the last call of `first_bad`; a verdict is None where none could be read.
    """

    judge: Judge
    step_prompt: str = "auto"
    transcripts: list[dict[str, Any]] = field(default_factory=list, init=False)
    verdicts: list[StepVerdict | None] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.template = step_template(self.step_prompt, self.judge.model.context_length if isinstance(self.judge, LocalJudge) else None)

    def first_bad(self, walks: Sequence[Walk], stream: Callable[[Task, str], int]) -> list[int | None]:
        """The number, from 0, of the first step of each episode that is judged bad; None where none is.

        All episodes are gone through at once, a step at a time, and none further than its first bad step. What several begin with is asked once. stream: the key of the
        random numbers of a question about a task.
        """
        self.transcripts, self.verdicts = [], []
        known: dict[Asked, StepVerdict | None] = {}
        found: list[int | None] = [None] * len(walks)
        for number in range(max((len(walk.steps) for walk in walks), default=0)):
            going = [i for i, walk in enumerate(walks) if found[i] is None and number < len(walk.steps)]
            fresh = {asked: walks[i].task for i in going if (asked := _asked(walks[i], number)) not in known}
            waiting = []
            for (problem, steps), task in fresh.items():
                messages = step_question(self.template, problem, steps[:-1], steps[-1])
                waiting.append((task, messages[-1].content, self.judge.ask(Question(messages, stream(task, messages[-1].content)))))
            self.judge.settle()
            for asked, (task, question, future) in zip(fresh, waiting, strict=True):
                judgement = future.result()
                known[asked] = step_verdict(judgement.text)
                self.verdicts.append(known[asked])
                self.transcripts.append({"task_id": task.id, "question": question, "text": judgement.text, "verdict": known[asked]})
            for i in going:
                if known[_asked(walks[i], number)] == "bad":
                    found[i] = number
        return found

    def metrics(self) -> Metrics:
        """Questions of the last call, and how its verdicts were; empty without any."""
        if not self.verdicts:
            return {}
        shares = {
            f"judge/{name}": mean([float(v == verdict) for v in self.verdicts])
            for name, verdict in {"bad": "bad", "uncertain": "uncertain", "unread": None}.items()
        }
        return {"judge/questions": float(len(self.verdicts))} | shares


def _asked(walk: Walk, number: int) -> Asked:
    return walk.task.prompt, walk.steps[: number + 1]
