"""Where the conversations come from that a method begins with: the task set's own, a file's, or a teacher's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from etude.config import AtLeastOne, Count, NonNegative
from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.remote import Endpoint, is_endpoint
from etude.models.sampling import SamplingParams
from etude.rollouts.teachers import teacher_attempts
from etude.tasks.base import TaskSet
from etude.tasks.conversations import read_conversations
from etude.tasks.templates import filled, read_template
from etude.types import Message, Task, Trajectory

Seed = tuple[Task, Sequence[Message]]
"""A conversation, and the task that it is about."""


@dataclass
class SeedConfig:
    """The conversations that a method begins with."""

    seed_source: str = "demonstrations"
    """Seed: the task set's own `demonstrations`, a JSONL file of conversations, a teacher (a model folder or hub id, or `http://host:port/v1#model`), or `none`."""
    seed_tasks: Count = 0
    """Tasks that the seed is made for (0: as many as --tasks-per-round). Of a file every conversation is taken."""
    seed_attempts: AtLeastOne = 1
    """Conversations of each of them."""
    teacher_prompt: str | None = None
    """What a teacher is asked, where that is more than the model itself is: a text file with {question}, which may hold worked examples."""
    teacher_temperature: NonNegative = 1.0
    """Temperature of a teacher (0: greedy)."""


class SeedSource:
    """What `--seed-source` names, opened: whatever can be wrong with it is found before compute is spent."""

    def __init__(self, config: SeedConfig, task_set: TaskSet, *, device: str, whole: Callable[[str], str] = lambda text: text) -> None:
        """whole: puts back what a sampler cut off the end of a turn. Raises InputError where there is nothing to be had."""
        self.config, self.task_set, self.whole = config, task_set, whole
        self.given: list[Seed] = []
        self.teacher: LanguageModel | Endpoint | None = None
        prompt = config.teacher_prompt
        self.asked = "{question}" if prompt is None else read_template(prompt, "--teacher-prompt", names=(), needs=("question",), may=())
        source = config.seed_source
        if source == "demonstrations":
            if task_set.conversation(task_set.train_task(0, 0), 0) is None:
                raise InputError(
                    f"{task_set.name} has no conversations to begin with; give JSONL lines a field 'conversation', or name another --seed-source: a JSONL file, a "
                    "model or an endpoint as teacher, or none"
                )
        elif source.lower().endswith(".jsonl"):
            self.given = list(read_conversations(Path(source).expanduser()))
        elif is_endpoint(source):
            self.teacher = Endpoint.parse(source)
            self.teacher.check()
        elif source != "none":
            try:
                self.teacher = LanguageModel.load(source, device=device)
            except InputError as error:
                raise InputError(
                    f"--seed-source {source} can't be used: {error}; expected demonstrations, a JSONL file, a model, an endpoint, or none"
                ) from error

    @property
    def gives_nothing(self) -> bool:
        return self.config.seed_source == "none"

    def conversations(self, tasks: Sequence[Task], params: SamplingParams, *, seed: int, ledger: Ledger) -> list[Seed]:
        """Conversations about the tasks, not judged; of a file all it has, whatever the tasks. params: how a teacher's turns are drawn, the temperature aside."""
        count = self.config.seed_attempts
        if self.given:
            return self.given
        if self.teacher is None:
            found = [(task, self.task_set.conversation(task, (seed + i) % 2**63)) for task in tasks for i in range(count)]
            return [(task, messages) for task, messages in found if messages is not None]
        drawn = replace(params, temperature=self.config.teacher_temperature, top_p=1.0, top_k=0)
        shown = [replace(task, messages=self._asked(task)) for task in tasks]
        held = teacher_attempts(self.teacher, shown, self.task_set, drawn, samples=count, seed=seed, ledger=ledger, whole=self.whole)
        return [(task, [*task.opening, *self._said(held[i * count + k])]) for i, task in enumerate(tasks) for k in range(count)]

    def _asked(self, task: Task) -> tuple[Message, ...]:
        *before, last = task.messages
        return (*before, replace(last, content=filled(self.asked, {"question": last.content})))

    def _said(self, trajectory: Trajectory) -> list[Message]:
        """The turns of an episode, up to the teacher's last. The student reads them under the question as it is asked itself."""
        turns = [Message("assistant", self.whole(s.text)) if s.author == "policy" else Message("tool", s.text) for s in trajectory.segments]
        return turns[:-1] if turns and turns[-1].role == "tool" else turns
