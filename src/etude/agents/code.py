"""An agent's code as a value: its files as texts by path, in plain JSON, with a note on what was changed last.

The same files are a git tree where they are looked at and edited (`etude.tasks.repos.store`), and a folder where they run, in the jail.
"""

from __future__ import annotations

import difflib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.tasks.repos.store import GitStore

Files = Mapping[str, str]
ENTRY = "main.py"
"""The file that is started."""
MOST_FILES, MOST_CHARACTERS = 50, 200_000
"""What an agent may have."""
STARTING_AGENT = Path(__file__).parent.parent / "assets" / "agent"
MARK = "=== {path} ==="
"""What stands before each file where the code is shown as a text."""


def agent_of(files: Files, note: str = "") -> dict[str, Any]:
    """The agent that some files make. note: what was changed, in a few words. Raises InputError for files that make none."""
    size = sum(len(text) for text in files.values())
    if ENTRY not in files:
        raise InputError(f"an agent has the files {', '.join(sorted(files)) or '(none)'}; expected {ENTRY} among them, which is started")
    if len(files) > MOST_FILES or size > MOST_CHARACTERS:
        raise InputError(f"an agent has {len(files)} files of {size} characters together; at most {MOST_FILES} and {MOST_CHARACTERS} are allowed")
    return {"files": dict(sorted(files.items())), "note": note}


def read_agent(folder: Path) -> dict[str, Any]:
    """The agent in a folder. Hidden files and compiled ones are left out. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected the starting agent, a folder with {ENTRY}")
    files: dict[str, str] = {}
    for place in sorted(folder.rglob("*")):
        parts = place.relative_to(folder).parts
        if place.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            try:
                files["/".join(parts)] = place.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{place} is no text in UTF-8; an agent is made of texts") from error
    return agent_of(files)


def tree_of(store: GitStore, files: Files) -> str:
    """The git tree of an agent's files."""
    return store.with_files(None, {path: text.encode() for path, text in files.items()})


def files_in(store: GitStore, tree: str) -> dict[str, str]:
    """An agent's files from their git tree. Raises InputError for what is no text."""
    try:
        with tarfile.open(fileobj=io.BytesIO(store.archive(tree))) as archive:
            return {member.name: file.read().decode() for member in archive if (file := archive.extractfile(member)) is not None}
    except UnicodeDecodeError as error:
        raise InputError("a file of the agent is no text in UTF-8; an agent is made of texts") from error


def listing(files: Files, limit: int = 20_000) -> str:
    """All files one after another, each under its name; past `limit` characters only their names."""
    parts, left = [], limit
    for path, text in files.items():
        left -= len(text)
        parts.append(f"{MARK.format(path=path)}\n{text if left >= 0 else '(view it)'}")
    return "\n".join(parts)


def difference(before: Files, after: Files) -> str:
    """The diff from one agent's files to another's."""
    return "\n".join(line for lines in _differences(before, after).values() for line in lines)


def sizes(before: Files, after: Files) -> str:
    """What a change touched, in a few words: 'edit.py +3 -1'."""
    counts = {path: [sum(line[0] == sign for line in lines[2:]) for sign in "+-"] for path, lines in _differences(before, after).items()}
    return ", ".join(f"{path} +{plus} -{minus}" for path, (plus, minus) in counts.items())


def _differences(before: Files, after: Files) -> dict[str, list[str]]:
    """Of each file that differs the diff, whose first two lines are the names."""
    found: dict[str, list[str]] = {}
    for path in sorted({*before, *after}):
        old, new = (files.get(path, "").splitlines() for files in (before, after))
        if lines := list(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", lineterm="")):
            found[path] = lines
    return found
