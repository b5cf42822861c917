"""Tasks from JSONL files: one JSON object a line with a `prompt` (or `messages`) and, where there is one, an `answer`.

A line to translate may give a `source` instead of a prompt, and a `reference` instead of an answer: the source is then all that the task says.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from etude.errors import InputError
from etude.tasks import mathematics
from etude.tasks.answers import final_answer, same_answer
from etude.tasks.base import prompt_key
from etude.tasks.finite import FiniteTasks
from etude.types import Message, Role, Task

HELD_OUT_SHARE = 0.2
MOST_HELD_OUT = 500
FIELDS = ("prompt", "messages", "answer", "id", "split")

Split = Literal["train", "test"]


@dataclass(frozen=True)
class _Row:
    task: Task
    split: Split | None
    place: str
    named: bool


class JsonlTaskSet(FiniteTasks):
    """Tasks from one or two JSONL files.

    Held out is what says `"split": "test"` or stands in the second file. Where nothing says so it is a fixed fifth of the different prompts (at least 1,
    at most 500), chosen by a hash of the prompt, so that it depends on nothing but the prompts. A training prompt that is held out too is dropped.

    An answer is correct when the text's final answer (see `etude.tasks.answers`; without a marker the last line) equals it as normalised text or number or,
    where one of the two is written as mathematics and math-verify is installed, as mathematics. Of a reference with a marker in it (`... #### 72`), what
    follows the marker counts.
    """

    max_new_tokens = 128
    without_training = 'add lines with "split": "train"'

    def __init__(self, train: Path, test: Path | None = None, *, needs_answers: bool = True, hold_all_out: bool = False) -> None:
        """`needs_answers`: refuse tasks without a reference answer, because nothing else judges them. `hold_all_out`: every line is held out, whatever it says.

        Raises InputError, naming file and line, for whatever cannot be used.
        """
        self.name = train.stem
        rows = _read(train)
        if test is not None:
            rows = [_Row(r.task, "train", r.place, r.named) for r in rows] + [_Row(r.task, "test", r.place, r.named) for r in _read(test)]
        rows = _with_unique_ids(rows)
        if needs_answers:
            _check_answers(rows)
        super().__init__(*(([], [r.task for r in rows]) if hold_all_out else _split(rows, train)))

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        if task.answer is None:
            raise InputError(f'task {task.id!r} has no answer to compare with; add an "answer", or judge with --reward file.py:function')
        given = self.answer_in(text)
        return {"correct": float(given is not None and _correct(task.answer, given))}

    def answer_in(self, text: str) -> str | None:
        lines = text.strip().splitlines()
        return final_answer(text) or (lines[-1].strip() if lines else None)

    def demonstration(self, task: Task, seed: int) -> str | None:
        """The task's own `demonstration` field, or else its reference answer on an answer line."""
        written = task.info.get("demonstration")
        if isinstance(written, str):
            return written
        return None if task.answer is None else f"answer: {task.answer}"


def has_answer(task: Task) -> bool:
    """Whether the task can be judged by comparing answers."""
    return task.answer is not None


def _correct(answer: str, given: str) -> bool:
    reference = final_answer(answer) or answer
    if same_answer(given, reference):
        return True
    wanted = mathematics.is_mathematical(reference) or mathematics.is_mathematical(given)
    return wanted and mathematics.available() and mathematics.same_mathematics(reference, given)


def _read(path: Path) -> list[_Row]:
    return [_row(fields, place, f"{path.stem}-{place.rpartition(' ')[2]}") for fields, place in read_objects(path)]


def read_objects(path: Path) -> list[tuple[dict[str, Any], str]]:
    """The JSON objects of a file, one a line, each with its place ('FILE, line N') for messages. Raises InputError for a file or a line that is something else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the task file {path} cannot be read: {error.strerror}; expected a JSONL file") from error
    if b"\0" in content:
        raise InputError(f"the task file {path} is binary; expected text, one JSON object a line")
    lines = enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    objects = [(_object(line, place), place) for number, line in lines if line.strip() and (place := f"{path}, line {number}")]
    if not objects:
        raise InputError(f'the task file {path} is empty; expected one JSON object a line, for example {{"prompt": "2+3=", "answer": "5"}}')
    return objects


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8"), parse_constant=_refuse)
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 text ({error.reason} at byte {error.start + 1}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not valid JSON ({error.msg} at character {error.pos + 1}); expected one JSON object a line") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: half of a two-part character escape (\\ud800 to \\udfff) stands alone; expected valid Unicode") from error
    except ValueError as error:
        raise InputError(f"{place}: {error}") from error
    except RecursionError as error:
        raise InputError(f"{place}: the JSON is nested too deeply") from error
    if not isinstance(fields, dict):
        raise InputError(f'{place}: a JSON {_json_type(fields)}; expected an object such as {{"prompt": "...", "answer": "..."}}')
    return fields


def _row(fields: dict[str, Any], place: str, default_id: str) -> _Row:
    split = fields.get("split")
    if split not in (None, *get_args(Split)):
        raise InputError(f'{place}: "split" is {split!r}; expected "train" or "test"')
    to_translate = fields.get("prompt") is None and fields.get("messages") is None and isinstance(fields.get("source"), str)
    if to_translate:
        fields = {**fields, "prompt": fields["source"], "answer": fields.get("answer", fields.get("reference"))}
    answer = fields.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float, type(None))):
        raise InputError(f'{place}: "answer" is a {_json_type(answer)}; expected a string or a number')
    ident = fields.get("id")
    if isinstance(ident, bool) or not isinstance(ident, (str, int, type(None))) or ident == "":
        raise InputError(f'{place}: "id" is {ident!r}; expected a string or a whole number')
    task = Task(
        id=default_id if ident is None else str(ident),
        messages=_messages(fields, place),
        answer=None if answer is None else str(answer),
        info={name: value for name, value in fields.items() if name not in FIELDS},
    )
    return _Row(task, split, place, named=ident is not None)


def _messages(fields: Mapping[str, Any], place: str) -> tuple[Message, ...]:
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if prompt is not None and messages is not None:
        raise InputError(f'{place}: both "prompt" and "messages"; expected one of them')
    if messages is None:
        if prompt is None:
            present = ", ".join(fields) or "none"
            raise InputError(f'{place}: no "prompt" (fields: {present}); {_misspelt(fields)}expected a "prompt" string or a list of "messages"')
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f'{place}: "prompt" is {"empty" if isinstance(prompt, str) else "a " + _json_type(prompt)}; expected a non-empty string')
        return (Message("user", prompt),)
    expected = f'a list of {{"role": ..., "content": ...}} with roles {", ".join(get_args(Role))}, the last one not the assistant\'s'
    if not isinstance(messages, list) or not messages:
        raise InputError(f'{place}: "messages" is {"empty" if messages == [] else "a " + _json_type(messages)}; expected {expected}')
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in get_args(Role) or not isinstance(message.get("content"), str):
            raise InputError(f"{place}: message {number} is {json.dumps(message)[:80]}; expected {expected}")
    if messages[-1]["role"] == "assistant":
        raise InputError(f"{place}: the last message is the assistant's, so nothing is left to write; expected {expected}")
    return tuple(Message(m["role"], m["content"]) for m in messages)


def _misspelt(fields: Mapping[str, Any]) -> str:
    """Advice to rename the field that looks most like a `prompt` or `messages`, or nothing."""
    for expected in ("prompt", "messages"):
        if close := get_close_matches(expected, [name for name in fields if name not in FIELDS], n=1, cutoff=0.6):
            return f'if "{close[0]}" is meant as it, rename it to "{expected}"; '
    return ""


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not valid JSON; expected a finite number or null")


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object", type(None): "null"}
    return names[type(value)]


def _with_unique_ids(rows: list[_Row]) -> list[_Row]:
    """Refuse an id that two lines give; make default ids differ from those given and, for two files of one name, from each other."""
    given: dict[str, str] = {}
    for row in rows:
        if row.named and row.task.id in given:
            raise InputError(f"{row.place}: the id {row.task.id!r} is taken by {given[row.task.id]}; give every task its own, or leave ids out")
        if row.named:
            given[row.task.id] = row.place
    taken = set(given)
    unique = []
    for row in rows:
        ident = row.task.id
        while not row.named and ident in taken:
            ident += "'"
        taken.add(ident)
        unique.append(_Row(Task(ident, row.task.messages, row.task.answer, row.task.info), row.split, row.place, row.named))
    return unique


def _check_answers(rows: Sequence[_Row]) -> None:
    without = [row.place for row in rows if row.task.answer is None]
    if without:
        count = "no task has" if len(without) == len(rows) else f"{len(without)} of {len(rows)} tasks have no"
        raise InputError(
            f'{without[0]}: {count} "answer", so nothing can judge an attempt; add answers, or give --reward file.py:function '
            "(or --env file.py:Class) to judge without them"
        )
    mathematical = sum(mathematics.is_mathematical(row.task.answer or "") for row in rows)
    if mathematical and not mathematics.available():
        warnings.warn(
            f"{mathematical} of {len(rows)} answers are written as mathematics and will be compared as text only; "
            "to compare them as mathematics: pip install 'etude[math]'",
            stacklevel=2,
        )


def _split(rows: Sequence[_Row], path: Path) -> tuple[list[Task], list[Task]]:
    keys = [prompt_key(row.task) for row in rows]
    if any(row.split is not None for row in rows):
        held = {key for key, row in zip(keys, rows, strict=True) if row.split == "test"}
        if not held:
            raise InputError(f'{path}: no line says "split": "test"; expected some that do, or no "split" at all (a fifth is held out then)')
        test = [row.task for row in rows if row.split == "test"]
        train = [row.task for key, row in zip(keys, rows, strict=True) if row.split != "test" and key not in held]
        return train, test
    different = sorted(set(keys))
    if len(different) < 2:
        raise InputError(f"{path}: one prompt only; expected at least two different ones, to train on some and measure on others")
    held = set(different[: min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(different))))])
    measured: dict[str, Task] = {}
    for key, row in zip(keys, rows, strict=True):
        if key in held:
            measured.setdefault(key, row.task)  # a prompt that occurs twice is measured once
    return [row.task for key, row in zip(keys, rows, strict=True) if key not in held], list(measured.values())
