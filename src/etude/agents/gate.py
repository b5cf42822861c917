"""The gate that a changed agent has to pass before it is one: a trivial task and a trivial edit of its own code, with a model that is always right.

What is asked for is no more than that the agent still works: it starts, keeps to the protocol, passes on what the model says, and ends by itself. How good it is, trials say.
"""

from __future__ import annotations

from etude.agents.code import ENTRY, Files, agent_of, files_in, tree_of
from etude.agents.runs import RunLog, run_agent
from etude.agents.workshop import Workshop
from etude.errors import InputError
from etude.sandbox.base import cut
from etude.sandbox.jail import JailSandbox
from etude.tasks.repos.store import GitStore
from etude.types import Message

PASSED = "All checks pass."
FAULTY, MENDED = "    return hours * 24\n", "    return hours * 60\n"
TRIVIAL = {"clock.py": f'def minutes(hours):\n    """Minutes of some hours."""\n{FAULTY}'}
TASK = "Mend a fault in a Python repository: minutes(2) of clock.py is 48 and should be 120."
OWN_CODE = "This repository is your own code. Change it."
TURNS, CALLS = 60, 60
"""Of the gate's runs: an agent that takes more at a trivial task does not end."""
CHANGED = "is changed"
"""What the answer to an edit says."""
_COMPILE = """
for path, text in {files!r}.items():
    compile(text, path, "exec", dont_inherit=True)
"""
_REPORT = 1500


def faults_of(jail: JailSandbox, store: GitStore, files: Files) -> str:
    """What keeps an agent from working, in words for whoever changed it; empty where it passes. Runs it twice in the jail, and asks no model."""
    try:
        agent_of(files)
    except InputError as error:
        return str(error)
    # Files that a trivial case does not import have to be Python too; the compiler gets to see them in the jail.
    [compiled] = jail.run([_COMPILE.format(files={path: text for path, text in files.items() if path.endswith(".py")})])
    if not compiled.ok:
        return f"it does not compile: {(compiled.error or '')[-_REPORT:]}"
    task = Workshop(store, tree_of(store, TRIVIAL), TASK, lambda tree: "1 passed" if _is_mended(store, tree) else "1 failed", TURNS)
    log = run_agent(jail, files, "solve", task, _right_fix, calls=CALLS)
    if wrong := _misbehaved(log) or ("" if _is_mended(store, task.tree) else "the fault was not mended, although the model said how"):
        return _report("solve", wrong, log)
    own = Workshop(store, tree_of(store, {ENTRY: files[ENTRY]}), OWN_CODE, lambda tree: PASSED, TURNS)
    start = own.tree
    log = run_agent(jail, files, "edit", own, _right_note, calls=CALLS)
    if wrong := _misbehaved(log) or ("" if own.tree != start else "nothing was changed, although the model said how"):
        return _report("edit", wrong, log)
    return ""


def _is_mended(store: GitStore, tree: str) -> bool:
    return MENDED in files_in(store, tree).get("clock.py", "")


def _misbehaved(log: RunLog) -> str:
    """What is wrong with a run, whatever came of it."""
    if log.ended is None:
        return "it did not end"
    if not log.ended.ok:
        return f"{log.ended.error}\n{log.ended.aside}".strip()
    return "" if log.calls else "it did not ask the model"


def _report(mode: str, wrong: str, log: RunLog) -> str:
    happened = "\n".join(entry for entry in log.entries if not entry.startswith("[host]"))
    return f"`{ENTRY} {mode}`, a trivial case: {wrong[-_REPORT:]}\nBefore that:\n{cut(happened, _REPORT) or '(nothing)'}"


def _right_fix(messages: tuple[Message, ...], tokens: int | None, stop: tuple[str, ...]) -> str:
    """What a model says to the trivial task that is always right: it looks where it has not looked, edits, and submits."""
    said = "\n".join(message.content for message in messages)
    if CHANGED in said or "1 passed" in said:
        return "Done.\n<action>\nsubmit\n</action>"
    if FAULTY.strip() not in said:
        return "I look at the file.\n<action>\nview clock.py\n</action>"
    return f"An hour has 60 minutes.\n<action>\nedit clock.py\n<<<<<<< SEARCH\n{FAULTY}=======\n{MENDED}>>>>>>> REPLACE\n</action>"


def _right_note(messages: tuple[Message, ...], tokens: int | None, stop: tuple[str, ...]) -> str:
    said = "\n".join(message.content for message in messages)
    if CHANGED in said or "is there already" in said:
        return "Done.\n<action>\nsubmit a note\n</action>"
    return "I leave a note.\n<action>\nedit notes.txt\n<<<<<<< SEARCH\n=======\nbeen here\n>>>>>>> REPLACE\n</action>"
