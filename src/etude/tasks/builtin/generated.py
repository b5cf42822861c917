"""Generated task sets: a random problem is drawn, and a hash of the problem itself decides whether it may ever be trained on."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, TypedDict

from etude.errors import InputError
from etude.tasks.answers import final_answer, follows_convention, same_answer
from etude.tasks.base import Annotation, TaskSet
from etude.types import Message, Task

# One problem in eight belongs to the held-out side.
HELD_OUT_SHARE = 8
# Draws in a row that may miss the wanted side, or repeat a problem, before the space of problems counts as used up.
MOST_DRAWS = 4000


@dataclass(frozen=True)
class Problem:
    """A problem before it becomes a task. `key` is the problem itself in one canonical spelling: equal problems have equal keys, whatever the wording."""

    key: str
    prompt: str
    answer: str
    info: Mapping[str, Any] = field(default_factory=dict)


def is_held_out(key: str) -> bool:
    """True for problems that are only ever evaluated on. It depends on the problem alone, so no setting, seed or family can move one across."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little") % HELD_OUT_SHARE == 0


class FamilyOptions(TypedDict, total=False):
    """What every built-in family can be told besides its own difficulty."""

    slips: float
    """How often demonstrations go wrong, per decision, in [0, 1). 0 gives correct ones; the warm start of the tiny model imitates imperfect ones."""
    direct: float
    """Share of demonstrations that state an answer without written work, in [0, 1]."""
    held_out_tasks: int
    """Size of the held-out split."""
    instruct: bool
    """Put `instruction` before each prompt, for models that have not met these families."""


class GeneratedTaskSet(TaskSet):
    """Base of the built-in families. What its constructor takes is described at `FamilyOptions`."""

    instruction: ClassVar[str] = "Work in short steps, one to a line. End with a line 'answer: X'."

    def __init__(self, *, slips: float = 0.0, direct: float = 0.0, held_out_tasks: int = 256, instruct: bool = False) -> None:
        if not 0 <= slips < 1:
            raise InputError(f"slips is {slips}; expected a rate in [0, 1), for example 0.3")
        if not 0 <= direct <= 1:
            raise InputError(f"direct is {direct}; expected a share in [0, 1]")
        if held_out_tasks < 1:
            raise InputError(f"held_out_tasks is {held_out_tasks}; expected at least 1")
        self.slips, self.direct, self.held_out_tasks, self.instruct = slips, direct, held_out_tasks, instruct
        self._held_out: list[Task] | None = None

    @abstractmethod
    def draw(self, random: Random) -> Problem:
        """A random problem."""

    @abstractmethod
    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        """Lines of written work and the final answer they lead to, with a mistake at each decision with probability about `slips`."""

    def judge(self, task: Task, answer: str) -> bool:
        """Whether a final answer solves the task."""
        return same_answer(answer, task.answer or "")

    def train_task(self, seed: int, index: int) -> Task:
        problem = self._draw_side(Random(f"{self.name}/train/{seed}/{index}"), held_out=False)
        return self._task(problem, f"{self.name}/train-{seed}-{index}")

    def held_out(self) -> Sequence[Task]:
        if self._held_out is None:
            random = Random(f"{self.name}/held-out")
            problems: dict[str, Problem] = {}
            misses = 0
            while len(problems) < self.held_out_tasks:
                problem = self._draw_side(random, held_out=True)
                misses = misses + 1 if problem.key in problems else 0
                if misses > MOST_DRAWS:
                    raise InputError(
                        f"{self.name} has fewer than {self.held_out_tasks} distinct held-out problems at this difficulty; "
                        f"ask for at most {len(problems)} held-out tasks, or widen its ranges"
                    )
                problems.setdefault(problem.key, problem)
            self._held_out = [self._task(p, f"{self.name}/held-out-{i}") for i, p in enumerate(problems.values())]
        return self._held_out

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        answer = final_answer(text)
        correct = answer is not None and self.judge(task, answer)
        return {"correct": float(correct), "format": float(follows_convention(text))}

    def demonstration(self, task: Task, seed: int) -> str | None:
        random = Random(f"{task.id}/demonstration/{seed}")
        return self._written(random, *self.work(task, random, self.slips))

    def conversation(self, task: Task, seed: int) -> list[Message]:
        """A whole demonstrated episode, from the task's messages to the last assistant turn. Multi-turn families override it."""
        text = self.demonstration(task, seed)
        return [*task.messages, Message("assistant", text or "")]

    def annotate(self, task: Task, text: str) -> Annotation | None:
        """'ok' for a right answer, else 'bad', with the number of the first wrong line, from 1, where the family can tell; and faultless work. None without a reference."""
        if task.answer is None:
            return None
        if self.verify(task, text)["correct"] == 1.0:
            return Annotation("ok", text)
        place = self.first_wrong_step(task, text.strip().splitlines())
        lines, answer = self.work(task, Random(f"{task.id}/refined"), 0.0)
        return Annotation("bad" if place is None or place < 0 else f"bad {place + 1}", "\n".join([*lines, f"answer: {answer}"]))

    def _written(self, random: Random, lines: Sequence[str], answer: str) -> str:
        """Work and answer as one text. A slip of form (no marker before the answer) is rare beside slips of content."""
        shown = [] if random.random() < self.direct else list(lines)
        marker = "" if random.random() < self.slips / 16 else "answer: "
        return "\n".join([*shown, marker + answer])

    def _draw_side(self, random: Random, *, held_out: bool) -> Problem:
        for _ in range(MOST_DRAWS):
            problem = self.draw(random)
            if is_held_out(problem.key) == held_out:
                return problem
        raise InputError(f"{self.name} has too few problems at this difficulty to keep a held-out split apart; widen its ranges")

    def _task(self, problem: Problem, id_: str) -> Task:
        prompt = f"{self.instruction}\n{problem.prompt}" if self.instruct else problem.prompt
        return Task(id=id_, messages=(Message("user", prompt),), answer=problem.answer, info=dict(problem.info))
