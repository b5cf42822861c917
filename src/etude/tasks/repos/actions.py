"""What a model can do with a repository, as text: the form of an action, and reading, searching and editing a tree.

    <action>
    edit src/clock.py
    <<<<<<< SEARCH
        return hours * 24
    =======
        return hours * 60
    >>>>>>> REPLACE
    </action>

Whatever is wrong with an action is said in a text that the model reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from etude.errors import InputError, nearest
from etude.sandbox.base import cut
from etude.tasks.repos.store import GitError, GitStore, plain_path

OPEN, CLOSE = "<action>", "</action>"
VERBS = ("list", "search", "view", "edit", "test", "submit")
FORM = f"""Each of your turns may begin with thoughts and ends with one action between {OPEN} and {CLOSE}:
list [FOLDER] - the files
search TEXT - lines that hold exactly this text
view FILE [FIRST-LAST] - a file, or some of its lines
edit FILE - replace a text that occurs exactly once; it is followed by
<<<<<<< SEARCH
the lines as they are
=======
the lines as they should be
>>>>>>> REPLACE
(nothing between the first two marks: a new file)"""
"""What a model is told of the actions that all repositories have."""
INSTRUCTION = f"""Mend a fault in a Python repository. {FORM}
test [FILE or FILE::TEST ...] - run tests, all of them where none is named
submit - hand in the repository as it is; hidden tests then decide"""
_EDIT = re.compile(r"\s*<{5,9} SEARCH[^\S\n]*\n(?P<old>.*?)^={5,9}[^\S\n]*\n(?P<new>.*?)^>{5,9} REPLACE\s*", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"\s*```[a-z]*[^\S\n]*\n(.*?)\n?```\s*", re.DOTALL)
_LINES = re.compile(r"(\d+)(?:\s*[-:,]\s*(\d+))?")
MOST_LINES = 200
"""Lines of a file that one action shows."""
MOST_FOUND = 60
"""Lines, or files, that one action lists."""
WIDEST = 300
"""Characters of a line that are shown."""
LARGEST_FILE = 1_000_000
"""Bytes of a file that an edit may leave."""


@dataclass(frozen=True, slots=True)
class Action:
    """A verb of VERBS, what stands behind it on its line, and the lines below."""

    verb: str
    argument: str = ""
    body: str = ""


def action_in(text: str) -> Action:
    """The first action of a turn. The closing mark may be missing: it ends the turn. A turn without marks is an action as a whole.

    Raises InputError, in words for the model, where there is none.
    """
    _, opened, rest = text.partition(OPEN)
    inside = rest.partition(CLOSE)[0] if opened else text.partition(CLOSE)[0]
    fenced = _FENCE.fullmatch(inside)
    line, _, body = (fenced[1] if fenced else inside).lstrip().partition("\n")
    verb, _, argument = line.strip().partition(" ")
    if verb not in VERBS:
        got = f"{verb[:40]!r} is no action.{nearest(verb, VERBS, count=1)}" if verb else "this turn has no action."
        raise InputError(f"{got} Expected one of {', '.join(VERBS)} between {OPEN} and {CLOSE}, for example\n{shown('list')}")
    return Action(verb, argument.strip(), body)


def shown(action: str) -> str:
    """An action as a turn has to hold it."""
    return f"{OPEN}\n{action}\n{CLOSE}"


def carried_out(store: GitStore, tree: str, action: Action) -> tuple[str, str, str | None]:
    """What a look or an edit gives: the words for the model, the tree afterwards, and the file that was changed, if any.

    Raises InputError, in words for the model, where it cannot be done.
    """
    if action.verb == "edit":
        after, path = edited(store, tree, action)
        return f"{path} is changed", after, path
    looks = {"list": listed, "search": found, "view": viewed}
    return looks[action.verb](store, tree, action.argument), tree, None


def listed(store: GitStore, tree: str, folder: str) -> str:
    """The files of a tree below a folder."""
    name = plain_path(folder) if folder.strip(" .`'\"/") else ""
    paths = [path for path in store.paths(tree) if not name or path == name or path.startswith(f"{name}/")]
    if not paths:
        raise InputError(f"there is no folder {name!r}; `list` alone shows all files")
    return _shortened(paths, "files; list a folder to see fewer")


def found(store: GitStore, tree: str, text: str) -> str:
    """The lines that hold a text."""
    if not text:
        raise InputError("search needs a text: search TEXT")
    lines = store.grep(tree, text)
    return _shortened(lines, "lines; search for something rarer") if lines else f"no line holds {text!r}"


def viewed(store: GitStore, tree: str, argument: str) -> str:
    """A file with line numbers, or some of its lines."""
    name, _, wanted = argument.strip().partition(" ")
    lines = _text(store, tree, _known(store, tree, name)).split("\n")
    if lines[-1] == "":
        lines.pop()
    first, last = 1, len(lines)
    if wanted.strip():
        numbers = _LINES.fullmatch(wanted.strip())
        if numbers is None:
            raise InputError(f"{wanted.strip()!r} are no lines; expected view FILE FIRST-LAST, for example view {name} 1-80")
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if not 1 <= first <= last or first > len(lines):
            raise InputError(f"there are no lines {first}-{last}; {name} has {len(lines)}")
        last = min(last, len(lines))
    shown = [f"{number:>4} {lines[number - 1][:WIDEST]}" for number in range(first, min(last, first + MOST_LINES - 1) + 1)]
    end = first + len(shown) - 1
    more = f"\n[{last - end} more lines; view {name} {end + 1}-{min(last, end + MOST_LINES)} shows the next ones]" if end < last else ""
    return ("\n".join(shown) or "(the file is empty)") + more


def edited(store: GitStore, tree: str, action: Action) -> tuple[str, str]:
    """The tree after an edit, and the file that it changed. Raises InputError, in words for the model, where the edit cannot be made."""
    block = _EDIT.fullmatch(action.body)
    if block is None:
        raise InputError(
            "the edit has not the expected form: a line '<<<<<<< SEARCH', the old lines, a line '=======', the new lines, a line '>>>>>>> REPLACE'"
        )
    old, new = block["old"], block["new"]
    if not old.strip():
        path = plain_path(action.argument)
        there = store.paths(tree)
        if not path or path in there:
            raise InputError(f"{path or 'the repository'} is there already, and nothing stands between SEARCH and =======; expected the lines to replace")
        if any(path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in there):
            raise InputError(f"{path} cannot be made: a part of that path is a file, or it is a folder")
        return _written(store, tree, path, new), path
    path = _known(store, tree, action.argument)
    text = _text(store, tree, path)
    # The last line of a file may end without a newline, which the form cannot say.
    if old not in text and not text.endswith("\n") and text.endswith(old[:-1]):
        old, new = old[:-1], new.removesuffix("\n")
    count = occurrences(text, old)
    if count != 1:
        advice = _advice(text, old) if count == 0 else "; take in more lines around the place"
        raise InputError(f"the text between SEARCH and ======= occurs {count} times in {path}; expected exactly once{advice}")
    if old == new:
        raise InputError("the old and the new lines are the same; nothing was changed")
    return _written(store, tree, path, text.replace(old, new)), path


def occurrences(text: str, part: str) -> int:
    """How often a text holds a part, places that overlap included."""
    count, at = 0, text.find(part)
    while at >= 0:
        count, at = count + 1, text.find(part, at + 1)
    return count


def _written(store: GitStore, tree: str, path: str, text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > LARGEST_FILE:
        raise InputError(f"{path} would have {len(data)} bytes; at most {LARGEST_FILE} are allowed")
    return store.with_files(tree, {path: data})


def _known(store: GitStore, tree: str, name: str) -> str:
    """The path of a file that is there."""
    path = plain_path(name)
    paths = store.paths(tree)
    if path not in paths:
        raise InputError(f"there is no file {path!r}.{nearest(path, paths)}")
    return path


def _text(store: GitStore, tree: str, path: str) -> str:
    try:
        data = store.read(tree, path)
    except GitError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if b"\0" in data:
        raise InputError(f"{path} is a binary file")
    return data.decode("utf-8", "surrogateescape")


def _advice(text: str, old: str) -> str:
    """What may be wrong with a text that does not occur."""
    stripped = [line.strip() for line in old.splitlines() if line.strip()]
    lines = [line.strip() for line in text.splitlines()]
    if any(lines[i : i + len(stripped)] == stripped for i in range(len(lines))):
        return "; the lines are there, but indented otherwise"
    first = next((number for number, line in enumerate(lines, 1) if line == stripped[0]), None)
    return f"; its first line is line {first} of the file, what follows there differs" if first else "; view the file and copy the lines exactly"


def _shortened(lines: list[str], what: str) -> str:
    shown = [cut(line, WIDEST) for line in lines[:MOST_FOUND]]
    return "\n".join([*shown, *([f"[{len(lines) - MOST_FOUND} more {what}]"] if len(lines) > MOST_FOUND else [])])
