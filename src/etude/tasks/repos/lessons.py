"""A solution as actions: what somebody does who knows the place. For imitation before practice."""

from __future__ import annotations

from difflib import SequenceMatcher

from etude.tasks.repos.actions import CLOSE, OPEN, Action, edited, occurrences
from etude.tasks.repos.store import GitStore

AROUND = 5
"""Lines before and after the place that are looked at first."""


def solution_actions(store: GitStore, start: str, patch: str) -> list[str] | None:
    """The turns that lead from `start` to what a patch makes of it: for each place a look and an edit, then a run of the tests and `submit`.

    None for a patch that actions cannot carry out: one that takes files away, or changes what is no text.
    """
    solved = store.apply(start, patch)
    turns: list[str] = []
    tree, there = start, set(store.paths(start))
    for path in store.changed(start, solved):
        if path not in store.paths(solved):
            return None
        try:
            before = store.read(start, path).decode() if path in there else ""
            after = store.read(solved, path).decode()
        except UnicodeDecodeError:
            return None
        if path not in there:
            steps = [("", after)]
        else:
            first, steps = replacements(before, after)
            turns.append(_turn(f"view {path} {max(1, first - AROUND)}-{first + AROUND}"))
        for old, new in steps:
            action = Action("edit", path, f"<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE")
            tree, _ = edited(store, tree, action)
            turns.append(_turn(f"edit {path}\n{action.body}"))
    return [*turns, _turn("test"), _turn("submit")] if tree == solved else None


def replacements(before: str, after: str) -> tuple[int, list[tuple[str, str]]]:
    """The first line, from 1, in which two texts differ, and replacements that make one of the other, one after another; each old text occurs once when its turn comes."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    changes = [change for change in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if change[0] != "equal"]
    steps: list[tuple[str, str]] = []
    # From the end, so that the lines before keep their numbers.
    for _, first, last, new_first, new_last in reversed(changes):
        wanted, text = new[new_first:new_last], "".join(old)
        while first == last or occurrences(text, "".join(old[first:last])) != 1:
            if first > 0:
                first, wanted = first - 1, [old[first - 1], *wanted]
            if last < len(old):
                last, wanted = last + 1, [*wanted, old[last]]
            if first == 0 and last == len(old):
                break
        steps.append(("".join(old[first:last]), "".join(wanted)))
        old[first:last] = wanted
    return changes[0][1] + 1 if changes else 1, steps


def _turn(action: str) -> str:
    return f"{OPEN}{action}{CLOSE}"
