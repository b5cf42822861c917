"""Meta-skill records: an answer, feedback on it and a refined answer, and the examples that teach a model to answer, to criticise and to refine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.curation.examples import conversation_example
from etude.errors import InputError
from etude.models.language import LanguageModel
from etude.tasks.feedback import Roles, verdict_in
from etude.tasks.jsonl import JsonlTaskSet
from etude.types import Message, Task, Trajectory

FIELDS = ("response", "feedback", "refined")


@dataclass(frozen=True)
class MetaRecord:
    """What an annotator says of a response to a task, and the response as it should be: the same where it is good already."""

    task: Task
    response: str
    feedback: str
    refined: str


def read_records(path: Path) -> list[MetaRecord]:
    """Records from a JSONL file: a `prompt` (or `messages`) a line, with `response`, `feedback` and `refined`.

    Raises InputError for a file that cannot be read, a field that is missing, and feedback without a verdict: what is taught here is what is read later.
    """
    if not path.is_file():
        raise InputError(f"there is no file of records {path}; expected a JSONL file whose lines have a prompt, {', '.join(FIELDS)}")
    records = []
    for task in JsonlTaskSet(path, needs_answers=False, hold_all_out=True).held_out():
        for name in FIELDS:
            if not isinstance(task.info.get(name), str):
                raise InputError(f"{path}: the record {task.id!r} has no text {name!r}; expected a prompt, {', '.join(FIELDS)}")
        record = MetaRecord(task, *(task.info[name] for name in FIELDS))
        if verdict_in(record.feedback) is None:
            raise InputError(
                f"{path}: the feedback of record {task.id!r} ends in {record.feedback.strip()[-40:]!r}, which is no verdict; expected a last line "
                "'verdict: qualified' or 'verdict: not qualified' (in the short form 'ok' or 'bad ...')"
            )
        records.append(record)
    if len({verdict_in(r.feedback) for r in records}) == 1:
        warnings.warn(f"all feedback in {path} gives the same verdict, so that a constant is what it teaches; expected some of both", stacklevel=2)
    return records


def three_ways(policy: LanguageModel, record: MetaRecord, roles: Roles, *, skills: bool = True, answer_weight: float = 1.0) -> list[Trajectory]:
    """The examples that a record makes: feedback on the response; the refined response after the feedback; the refined response at once, with `answer_weight` (0: left
    out). Without `skills` only the last: a plain demonstration. One that does not fit into the model's context is left out.
    """
    task = record.task
    asked: list[tuple[str, Sequence[Message], str, float]] = [("answer", task.messages, record.refined, answer_weight)]
    if skills:
        asked.append(("feedback", roles.criticise(task, record.response), record.feedback, 1.0))
        asked.append(("refine", roles.revise(task, record.response, record.feedback), record.refined, 1.0))
    examples = []
    for kind, messages, target, weight in asked:
        room = policy.context_length - len(policy.render(messages)) - 1
        if weight and len(policy.tokenizer(target, add_special_tokens=False)["input_ids"]) <= room:
            examples.append(conversation_example(policy, task, [*messages, Message("assistant", target)], weight=weight, kind=kind))
    return examples
