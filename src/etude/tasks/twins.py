"""Twins: a question and another wording of it, with the same answer.

A task that has a twin carries the other wording in its `info`, as plain values under TWIN, so that it goes wherever the task goes. `twin_of` makes a task of it. Both
know their pair by the original's id, which survives any re-ordering of what is sampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from etude.errors import InputError
from etude.types import Group, Message, Task

TWIN = "twin"
"""Entry of a task's `info`: the other wording, a text or a list of messages."""
PAIR = "pair"
"""Entry of a twin's `info`: the id of the task that it is the other wording of."""
ENDING = "~twin"

Wording = str | Sequence[Message]
"""What a rewriter gives: the text of the last user turn, or all messages."""


def with_twin(task: Task, wording: Wording) -> Task:
    """The task with another wording of its question. A text takes the place of the last user message; what comes before stays."""
    messages = reworded(task, wording) if isinstance(wording, str) else tuple(wording)
    return replace(task, info={**task.info, TWIN: [asdict(m) for m in messages]})


def reworded(task: Task, text: str) -> tuple[Message, ...]:
    """The task's messages with another text as the last user message."""
    last = max((i for i, m in enumerate(task.messages) if m.role == "user"), default=len(task.messages) - 1)
    return (*task.messages[:last], Message(task.messages[last].role, text), *task.messages[last + 1 :])


def twin_of(task: Task) -> Task:
    """The other wording as a task of its own, with the same reference answer. Raises InputError for a task that has none."""
    if TWIN not in task.info:
        raise InputError(f"task {task.id!r} has no other wording; expected one under {TWIN!r} in its info")
    messages = messages_from(task.info[TWIN], task)
    info = {name: value for name, value in task.info.items() if name != TWIN} | {PAIR: task.id}
    return Task(task.id + ENDING, messages, task.answer, info)


def without_twin(task: Task) -> Task:
    """The original alone, as it was before it got another wording."""
    return replace(task, info={name: value for name, value in task.info.items() if name != TWIN})


def messages_from(wording: Any, task: Task) -> tuple[Message, ...]:
    """A wording as messages: a text in the place of the last user message, or a list of messages. Raises InputError for anything else."""
    if isinstance(wording, str) and wording.strip():
        return reworded(task, wording)
    if isinstance(wording, Sequence) and not isinstance(wording, str) and wording and all(map(_is_message, wording)):
        return tuple(m if isinstance(m, Message) else Message(m["role"], m["content"]) for m in wording)
    raise InputError(
        f'the other wording of task {task.id!r} is {str(wording)[:60]!r}; expected a text that is not empty, or a list of {{"role": ..., "content": ...}}'
    )


def is_twin(task: Task) -> bool:
    """Whether a task is the other wording of another."""
    return PAIR in task.info


def pair_id(task: Task) -> str:
    """What both wordings of a question have in common: the id of the original."""
    return str(task.info.get(PAIR, task.id))


def paired(groups: Iterable[Group]) -> list[tuple[Group, Group]]:
    """Groups of two wordings joined by their pair's id, whatever order they come in: (original, twin), in the order in which the originals come.

    A group whose other half is missing is left out. Groups are asked for their first trajectory's task.
    """
    originals: dict[str, list[Group]] = {}
    twins: dict[str, list[Group]] = {}
    for group in groups:
        if group.trajectories:
            task = group.trajectories[0].task
            (twins if is_twin(task) else originals).setdefault(pair_id(task), []).append(group)
    # A finite set may bring the same question twice in a step: the first of its groups belongs to the first of its twins.
    return [both for ident, own in originals.items() for both in zip(own, twins.get(ident, ()), strict=False)]


def _is_message(value: Any) -> bool:
    if isinstance(value, Message):
        return True
    return isinstance(value, Mapping) and value.get("role") in ("system", "user", "assistant", "tool") and isinstance(value.get("content"), str)
