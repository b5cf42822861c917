"""Rewriters: from a task to another wording of its question, by rule, by a function of the user's own, or from a field of the task.

Rewriting by a model is in `etude.models.rewriting`. What cannot be rewritten gives None, and the task is left out together with its twin.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from etude.durable import JsonLines
from etude.errors import InputError
from etude.ledger import Ledger
from etude.tasks.base import prompt_key
from etude.tasks.builtin.rewriting import FAMILIES, by_rule
from etude.tasks.twins import TWIN, messages_from, with_twin
from etude.tasks.user_code import describe, describe_value, load_object, source_file, where
from etude.types import Message, Task

EXPECTED = "a text, a list of messages, or None for a question to leave out"


class Rewriter(Protocol):
    """From a task to the same task with another wording of its question (`etude.tasks.twins.with_twin`), or None."""

    def __call__(self, task: Task) -> Task | None: ...


class RuleRewriter:
    """Built-in questions, by rule. words: operators in words as well."""

    def __init__(self, *, words: bool = False) -> None:
        self.words = words

    def __call__(self, task: Task) -> Task | None:
        turned = by_rule(task.prompt, words=self.words)
        return None if turned is None else with_twin(task, turned)


class FieldRewriter:
    """What the task brings along: of a JSONL line the field `twin`, a text or a list of messages."""

    def __call__(self, task: Task) -> Task | None:
        given = task.info.get(TWIN)
        return None if given is None else with_twin(task, messages_from(given, task))


class FunctionRewriter:
    """A user's `rewrite(text) -> text`, or `rewrite(messages)` for a function whose parameter has that name; checked on every call.

    What it gives is kept in `kept`, so that a function which draws or asks a model is asked once for each question, and a resumed run has the same pairs.
    """

    def __init__(self, function: Callable[..., Any], name: str, kept: RewriteCache) -> None:
        if not callable(function) or inspect.isclass(function) or inspect.iscoroutinefunction(function):
            raise InputError(f"--rewriter {name} is {describe_value(function)}; expected a plain function rewrite(text) that returns {EXPECTED}")
        try:
            parameters = list(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            parameters = ["text"]
        if not parameters:
            raise InputError(f"--rewriter {name} takes no argument; expected rewrite(text) or rewrite(messages)")
        self.name, self._function, self._kept = name, function, kept
        self._wants_messages = parameters[0] == "messages"
        self._file = source_file(function)

    @classmethod
    def load(cls, spec: str, kept: RewriteCache) -> FunctionRewriter:
        """From `file.py:function`. Raises InputError when there is no such function."""
        return cls(load_object(spec, "--rewriter"), spec, kept)

    def __call__(self, task: Task) -> Task | None:
        if task in self._kept:
            return self._kept.rewritten(task)
        shown: Any = [{"role": m.role, "content": m.content} for m in task.messages] if self._wants_messages else task.prompt
        try:
            given = self._function(shown)
        except Exception as error:
            raise InputError(
                f"--rewriter {self.name} failed on task {task.id!r}: {describe(error)} ({where(error, self._file)}); expected {EXPECTED}"
            ) from error
        if given is None:
            self._kept.add([(task, None)])
            return None
        try:
            self._kept.add([(task, messages_from(given, task))])
        except InputError as error:
            raise InputError(f"--rewriter {self.name} returned {describe_value(given)} for task {task.id!r}; expected {EXPECTED}") from error
        return self._kept.rewritten(task)


class RewriteCache:
    """Wordings that were made once, in a file of the run's folder: a line a question, whose key is the question itself.

    A line has `key`, the question `asked` (for a reader) and `twin`: the messages of the other wording, or null where there is none. A line with `spent` says what
    it cost to make those before it.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        lines = list(self._lines)
        self._twins: dict[str, Any] = {line["key"]: line["twin"] for line in lines if "key" in line}
        self.spent = sum((Ledger.from_plain(line["spent"]) for line in lines if "spent" in line), start=Ledger())

    def __contains__(self, task: Task) -> bool:
        return prompt_key(task) in self._twins

    def rewritten(self, task: Task) -> Task | None:
        """The task with its other wording; None where it has none. Raises KeyError for a question that was never asked."""
        twin = self._twins[prompt_key(task)]
        return None if twin is None else with_twin(task, messages_from(twin, task))

    def add(self, wordings: Iterable[tuple[Task, tuple[Message, ...] | None]], spent: Ledger | None = None) -> None:
        """Keep the wordings of some tasks, and what they cost."""
        lines = [
            {"key": prompt_key(task), "asked": task.prompt, "twin": None if messages is None else [{"role": m.role, "content": m.content} for m in messages]}
            for task, messages in wordings
        ]
        self._lines.append([*lines, *([{"spent": spent.to_plain()}] if spent is not None else [])])
        self._twins |= {line["key"]: line["twin"] for line in lines}
        self.spent += spent or Ledger()


def automatic(task: Task) -> Rewriter:
    """The rewriter that a task asks for by itself: its own field where it has one, else the rules. Raises InputError where neither knows another wording."""
    if TWIN in task.info:
        return FieldRewriter()
    if by_rule(task.prompt, words=True) is not None:
        return RuleRewriter()
    raise InputError(
        f"nothing says how to put task {task.id!r} ({task.prompt[:60]!r}) in other words: the rules know {', '.join(FAMILIES)}; give JSONL lines a field "
        f'"{TWIN}" with the other wording, or --rewriter my_rewrites.py:rewrite, `self` or another model'
    )
