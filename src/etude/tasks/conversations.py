"""Conversations to imitate, from a JSONL file: one object a line, with `messages` that end with the assistant's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.tasks.program_rounds import messages_of
from etude.types import Message, Task

EXPECTED = 'expected one JSON object a line, {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}, ...], "answer": ...}'


def read_conversations(path: Path) -> list[tuple[Task, list[Message]]]:
    """Each conversation with the task that it is about: what stands before the first turn of the assistant, its `answer` where the line has one, and the line's other
    fields for whoever judges it.

    Raises InputError, naming file and line, for whatever cannot be used.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file of conversations {path} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8 text'}; {EXPECTED}") from error
    found = [_read(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f"the file of conversations {path} is empty; {EXPECTED}")
    return found


def _read(line: str, path: Path, number: int) -> tuple[Task, list[Message]]:
    place = f"{path}, line {number}"
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: not valid JSON ({error}); {EXPECTED}") from error
    if not isinstance(row, dict) or "messages" not in row:
        raise InputError(f"{place}: no object with 'messages'; {EXPECTED}")
    messages = messages_of(row["messages"], place)
    first = next(i for i, m in enumerate(messages) if m.role == "assistant")
    if first == 0:
        raise InputError(f"{place}: the conversation begins with the assistant, so that nothing is asked; {EXPECTED}")
    answer = row.get("answer")
    info = {name: value for name, value in row.items() if name not in ("messages", "answer")}
    return Task(f"{path.stem}-{number}", tuple(messages[:first]), None if answer is None else str(answer), info), messages
