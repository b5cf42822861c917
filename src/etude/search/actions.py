"""Actions of an agent as texts: what was done, whether two are the same, of which kind one is, and which files it names.

Environments differ in their actions. What is read here is what most agents' actions have in common: a verb first, perhaps after thoughts, perhaps between `<action>` marks.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Literal, get_args

Kind = Literal["look", "plan", "edit", "test", "finish", "other"]
"""What an action is for: searching and reading, planning, changing something, running tests, handing in; or none of these."""
KINDS: tuple[Kind, ...] = get_args(Kind)
_VERBS: dict[str, Kind] = {
    **dict.fromkeys(("list", "ls", "search", "find", "grep", "view", "open", "read", "cat", "look", "examine", "inventory"), "look"),
    **dict.fromkeys(("plan", "think", "suspect", "identify", "hypothesis"), "plan"),
    **dict.fromkeys(("edit", "patch", "write", "insert", "replace", "create", "delete"), "edit"),
    **dict.fromkeys(("test", "tests", "pytest", "run"), "test"),
    **dict.fromkeys(("submit", "finish", "done", "answer", "answer:", "reject"), "finish"),
}
_ASSIGNMENT = re.compile(r"[a-z]\w*\s*=[^=]")
_MARKED = re.compile(r"<action>(.*?)(?:</action>|\Z)", re.DOTALL)
_FILE = re.compile(r"(?:[\w.-]+/)*[\w-]+\.[a-z]{1,5}\b")
_LINES = re.compile(r"\b(\d+)\s*[-:,]\s*(\d+)\b")


def stated_action(text: str) -> str:
    """What a turn does, without its thoughts: what stands between `<action>` marks, or the whole turn. Spaces at the ends of lines, and empty lines around it, do not count.

    Of a turn without marks whose first line begins with no verb but whose last one does, the last line.
    """
    marked = _MARKED.search(text)
    lines = [line.rstrip() for line in (marked[1] if marked else text.partition("</action>")[0]).strip().splitlines()]
    if marked is None and len(lines) > 1 and _kind(lines[0]) == "other" and _kind(lines[-1]) != "other":
        return lines[-1].strip()
    return "\n".join(lines)


def kind_of(action: str) -> Kind:
    """The kind of an action, by its verb; a statement like `a=b+1` is an edit."""
    return _kind(action.partition("\n")[0])


def _kind(line: str) -> Kind:
    words = line.split()
    if words and (kind := _VERBS.get(words[0].lower())) is not None:
        return kind
    return "edit" if _ASSIGNMENT.match(line.strip()) else "other"


def files_in(action: str) -> list[str]:
    """The files that an action's first line names, each once."""
    return list(dict.fromkeys(_FILE.findall(action.partition("\n")[0])))


def spans_in(action: str) -> list[str]:
    """The places that an action is about: `file:first-last` where it names lines, of each of its files; else the verb and the rest of the line."""
    line = action.partition("\n")[0].strip()
    ranges = _LINES.findall(line)
    files = files_in(action)
    return [f"{file}:{first}-{last}" for file in files for first, last in ranges] or ([f"{file}: {line.split()[0]}" for file in files] if files else [line])


def jaccard(one: Set[str], other: Set[str]) -> float:
    """Share of what two collections have in common among what they have together; 1 for two empty ones."""
    return len(one & other) / len(one | other) if one or other else 1.0
