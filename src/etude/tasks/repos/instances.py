"""Software tasks as data: one line of a file in the format of SWE-bench, read and checked.

    {"instance_id", "repo", "base_commit", "patch", "test_patch", "problem_statement", "FAIL_TO_PASS", "PASS_TO_PASS"}

Two more fields are optional: `visible`, failing tests that the model is told of, and `split` (`train` or `test`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.tasks.jsonl import read_objects
from etude.tasks.repos.testing import file_of

TEXTS = ("instance_id", "repo", "base_commit", "test_patch", "problem_statement")


@dataclass(frozen=True, slots=True)
class Instance:
    """A task before it is shown to anybody.

    base_commit: what the model starts from. patch: a solution. test_patch: brings the tests that decide, which the model never sees. fail_to_pass, pass_to_pass: node
    ids of tests that have to pass in the end, the first of which fail at the start. visible: tests that the model is told to run. place: file and line, for messages.
    """

    id: str
    repo: str
    base_commit: str
    patch: str
    test_patch: str
    problem: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    visible: tuple[str, ...] = ()
    split: str | None = None
    place: str = ""

    @property
    def test_files(self) -> list[str]:
        """The files whose tests decide."""
        return list(dict.fromkeys(file_of(test) for test in (*self.fail_to_pass, *self.pass_to_pass)))


def read_instances(path: Path) -> list[Instance]:
    """All instances of a file. Raises InputError, with file and line, for what is none, and for an id that occurs twice."""
    instances = [_instance(fields, place) for fields, place in read_objects(path)]
    seen: dict[str, str] = {}
    for instance in instances:
        if instance.id in seen:
            raise InputError(f"{instance.place}: the instance_id {instance.id!r} is taken by {seen[instance.id]}; give every instance its own")
        seen[instance.id] = instance.place
    return instances


def _instance(fields: Mapping[str, Any], place: str) -> Instance:
    missing = [name for name in (*TEXTS, "FAIL_TO_PASS", "PASS_TO_PASS") if name not in fields]
    if missing:
        raise InputError(f"{place}: no {' and no '.join(repr(name) for name in missing)}; expected the fields of SWE-bench")
    for name in (*TEXTS, "patch"):
        if not isinstance(fields.get(name, ""), str):
            raise InputError(f"{place}: {name!r} is no text")
    if not fields["instance_id"] or not fields["problem_statement"].strip():
        raise InputError(f"{place}: 'instance_id' or 'problem_statement' is empty")
    split = fields.get("split")
    if split not in (None, "train", "test"):
        raise InputError(f"{place}: 'split' is {split!r}; expected 'train' or 'test'")
    fail, keep, visible = (_tests(fields.get(name, []), name, place) for name in ("FAIL_TO_PASS", "PASS_TO_PASS", "visible"))
    if not fail:
        raise InputError(f"{place}: FAIL_TO_PASS is empty, so nothing says when the task is solved")
    return Instance(
        *(fields["instance_id"], fields["repo"], fields["base_commit"], fields.get("patch", ""), fields["test_patch"], fields["problem_statement"]),
        *(fail, keep, visible),
        split,
        place,
    )


def _tests(value: Any, name: str, place: str) -> tuple[str, ...]:
    """A list of node ids, which SWE-bench writes as JSON within JSON."""
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: {name} is no JSON list ({error.msg})") from error
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(test, str) for test in given):
        raise InputError(f"{place}: {name} is no list of texts; expected node ids of pytest")
    try:
        for test in given:
            file_of(test)
    except InputError as error:
        raise InputError(f"{place}: {name}: {error}") from error
    return tuple(given)
