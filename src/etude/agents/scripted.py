"""A model that coding agents can ask without any model being there: it knows the solutions, and how often it is right depends on a skill and on what the agent shows it.

It sees no more of an agent than the conversation that the agent makes. A failing test that it is shown helps it, and so does a prompt that makes it think; where a prompt
asks for the tests it runs them. When an agent edits its own code, it makes one of the changes of CHANGES, well or badly. So what an agent is worth, and what becomes of its
descendants, follows from what its code really does: one that checks its own changes loses fewer of them.

For tests, and for looking at a search before it costs anything. It says nothing about how well a real model edits itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from etude.agents.code import MARK
from etude.models.sampling import stream_key
from etude.models.scripted import Rule, ScriptedModel, Situation
from etude.tasks.repos.actions import CLOSE, OPEN
from etude.tasks.repos.lessons import replacements
from etude.tasks.repos.tasks import RepositoryTasks
from etude.types import Message, Task

SHOWN_HELP, THINKING_HELP, SMALL_HELP, TRAP_HELP = 1.5, 0.7, 1.0, 2.0
"""What helps, in logits: a failing test that is shown, a prompt to think first, a prompt to change little, a hint that fits the fault (and hinders where it does not)."""
SPREAD = 0.7
"""Standard deviation of the tasks' difficulties."""
FIRST, RETRY, SUBMIT_TESTED, THINK = "Run the tests first.", "When tests fail, edit again.", "Run the tests after an edit.", "Think step by step."
SMALL, HINT_SIGNS, HINT_NAMES = "Make one small change.", "Look at comparisons and arithmetic.", "Look at names and numbers."
LAST_LINE = "Say briefly what you think, then give one action.\n"
_FAILED, _PASSED = re.compile(r"\b[1-9]\d* (failed|errors?)\b"), re.compile(r"\b\d+ passed\b")
_PLAN = re.compile(r"Plan: (\S+)")


@dataclass(frozen=True)
class Change:
    """Something that can be changed in an agent: texts to replace by file. note: what it is, for `submit`."""

    name: str
    note: str
    steps: tuple[tuple[str, str, str], ...]

    def fits(self, files: dict[str, str]) -> bool:
        """Whether it can be made, and was not made yet."""
        return all(files.get(path, "").count(old) == 1 and _added(old, new) not in files[path] for path, old, new in self.steps)


def _added(old: str, new: str) -> str:
    return new.removesuffix(old) if new.endswith(old) else new.removeprefix(old)


def _prompted(name: str, note: str, mode: str, line: str) -> Change:
    return Change(name, note, ((f"prompts/{mode}.txt", LAST_LINE, f"{line}\n{LAST_LINE}"),))


def _edit_turns(turns: int) -> str:
    return f'  "edit_turns": {turns}\n'


_ACT = "        answer, done = act(said)\n"
_STOP_FAILED = """        if "submit" in said:
            answer, _ = act("test")
            if "failed" in answer:
                messages.append({"role": "user", "content": answer + "\\nSome tests fail: edit again."})
                continue
"""
_CHECK_SELF = """        if "submit" in said:
            answer, _ = act("test")
            if "All checks pass." not in answer:
                messages.append({"role": "user", "content": answer + "\\nThe checks fail: edit again."})
                continue
"""
_START = "def solve(task):\n"
_TESTS_SHOWN = '    task = task + "\\n\\nThe tests say:\\n" + act("test")[0]\n'
SOLVING = (
    _prompted("tests-first", "the prompt asks for the tests before an edit", "solve", FIRST),
    _prompted("tests-after", "the prompt asks for the tests after an edit, and for another edit when they fail", "solve", f"{SUBMIT_TESTED} {RETRY}"),
    _prompted("think", "the prompt asks to think step by step", "solve", THINK),
    Change("solve-turns", "more turns for a task", (("config.json", '  "solve_turns": 4,\n', '  "solve_turns": 12,\n'),)),
    Change("no-failing-submit", "nothing is submitted while tests fail", (("solve.py", _ACT, _STOP_FAILED + _ACT),)),
    Change("tests-shown", "the tests' output is shown with the task", (("solve.py", _START, _START + _TESTS_SHOWN),)),
)
"""Changes that help with tasks."""
EDITING = (
    Change("checks-itself", "changes of this code are checked before they are submitted", (("edit.py", _ACT, _CHECK_SELF + _ACT),)),
    _prompted("small-changes", "the prompt for changes of this code asks for small ones", "edit", SMALL),
    Change("edit-turns", "more turns for changes of this code", (("config.json", _edit_turns(4), _edit_turns(12)),)),
)
"""Changes that help with further changes."""
NEUTRAL = (
    _prompted("polite", "a friendlier prompt", "solve", "Be friendly."),
    _prompted("careful", "a prompt that asks for care", "edit", "Be careful."),
    Change("comment", "a comment", (("host.py", "def act(text):\n", "# What a turn comes to.\ndef act(text):\n"),)),
    Change("name", "a name in the configuration", (("config.json", "{\n", '{\n  "name": "agent",\n'),)),
)
TRAPS = tuple(
    Change(f"{name}-{turns}", f"a hint to look at {name}", (("config.json", _edit_turns(turns), _edit_turns(1)), _prompted("", "", "solve", hint).steps[0]))
    for name, hint in (("signs", HINT_SIGNS), ("names", HINT_NAMES))
    for turns in (4, 12)
)
"""Changes that solve more tasks of one kind, and leave one turn for further changes."""
CHANGES = (*SOLVING, *EDITING, *NEUTRAL, *TRAPS)


@dataclass(frozen=True)
class Solution:
    """What is behind a task: the issue, the place and both texts, how hard it is, and whether the fault is one of signs."""

    problem: str
    path: str
    old: str
    new: str
    difficulty: float
    signs: bool


def scripted_agent_model(tasks: RepositoryTasks, every: Iterable[Task], *, skill: float = -0.5, editing: float = 0.5, seed: int = 0) -> ScriptedModel:
    """The model for these tasks. skill: in logits, of an edit of average difficulty without any help. editing: the same for changes of an agent's own code.

    Tasks whose solution is no single replacement in one text are never solved.
    """
    known = [solution for task in every if (solution := _solution(tasks, task)) is not None]

    def solution_for(messages: Sequence[Message]) -> Solution | None:
        text = "\n".join(message.content for message in messages if message.role != "assistant")
        return next((solution for solution in known if f"The issue:\n{solution.problem}" in text), None)

    def edits_itself(messages: tuple[Message, ...]) -> bool:
        return any(MARK.format(path="main.py") in message.content for message in messages)

    return ScriptedModel(
        [
            Rule("edit", edits_itself, _edited),
            Rule("solve", lambda messages: solution_for(messages) is not None, lambda situation: _solved(situation, solution_for(situation.messages))),
            Rule("other", lambda messages: True, lambda situation: _action("submit")),
        ],
        skill=skill,
        skills={"edit": editing},
        seed=seed,
    )


def _solution(tasks: RepositoryTasks, task: Task) -> Solution | None:
    store, start = tasks.start_of(task)
    instance = tasks.instance(task)
    solved = store.apply(start, instance.patch)
    changed = store.changed(start, solved)
    if len(changed) != 1 or changed[0] not in store.paths(start):
        return None
    _, steps = replacements(store.read(start, changed[0]).decode("utf-8", "replace"), store.read(solved, changed[0]).decode("utf-8", "replace"))
    if len(steps) != 1:
        return None
    difficulty = Random(stream_key("difficulty", task.id)).gauss(0, SPREAD)
    old, new = steps[0]
    letters = "[^a-z0-9_\\s]"
    signs = re.findall(letters, old) != re.findall(letters, new)
    return Solution(instance.problem.strip(), changed[0], old, new, difficulty, signs)


def _solved(situation: Situation, solution: Solution | None) -> str:
    """The next turn at a task: look, run the tests where the prompt asks for it, edit, try again where the agent goes on, submit."""
    assert solution is not None, "the rule was asked first"
    told = "\n".join(m.content for m in situation.messages if m.role != "assistant")
    mine = [m.content for m in situation.messages if m.role == "assistant"]
    # The text at the place, as this model's own edits have left it, as far as the agent shows them.
    attempts = [turn for turn in mine if "<<<<<<< SEARCH" in turn]
    tested, failing = _FAILED.search(told) or _PASSED.search(told), bool(_FAILED.search(told))
    last = situation.last
    if attempts and "is changed" in last and SUBMIT_TESTED in told:
        return _action("test")
    if attempts and not (_FAILED.search(last) and (RETRY in told or "edit again" in last)) and not last.startswith("Error:"):
        return _action("submit")
    if solution.old.rstrip() not in _without_numbers(told) and not attempts:
        return _action(f"view {solution.path}")
    if FIRST in told and not tested:
        return _action("test")
    help_ = SHOWN_HELP * failing + THINKING_HELP * (THINK in told)
    help_ += sum(TRAP_HELP if solution.signs == (hint == HINT_SIGNS) else -TRAP_HELP / 2 for hint in (HINT_SIGNS, HINT_NAMES) if hint in told)
    now = _replacement(attempts[-1]) if attempts and not last.startswith("Error:") else solution.old
    right = situation.succeeds(solution.difficulty - help_)
    return _edit(solution.path, now, solution.new if right else _unmended(solution.old, len(attempts) + 1))


def _edited(situation: Situation) -> str:
    """The next turn at the agent's own code: choose a change that fits, make its steps one after another, each well or badly, mend what the checks find, submit."""
    files = _files_in(next(m.content for m in situation.messages if MARK.format(path="main.py") in m.content))
    told = "\n".join(m.content for m in situation.messages if m.role != "assistant")
    pairs = [(m.content, after.content) for m, after in zip(situation.messages, situation.messages[1:], strict=False) if m.role == "assistant"]
    plan = next((found[1] for turn, _ in pairs if (found := _PLAN.search(turn))), None)
    change = next((c for c in CHANGES if c.name == plan), None)
    if change is None:
        fitting = [c for c in CHANGES if c.fits(files)]
        if not fitting:
            return _action("submit")
        change = situation.random.choice(fitting)
    done = [turn for turn, answer in pairs if "<<<<<<< SEARCH" in turn and not answer.startswith("Error:")]
    help_ = SMALL_HELP * (SMALL in told)
    well = situation.succeeds(-help_)
    if len(done) < len(change.steps):
        path, old, new = change.steps[len(done)]
        return f"Plan: {change.name}\n" + (_edit(path, old, new) if well else _spoilt(path, old, new))
    if "edit again" in situation.last:
        path, _, new = change.steps[-1]
        return _edit(path, _replacement(done[-1]), new) if well else _action("view main.py")
    return _action(f"submit {change.note}")


def _files_in(text: str) -> dict[str, str]:
    """The files of a listing, by path."""
    parts = re.split(r"^=== (\S+) ===\n", text, flags=re.MULTILINE)
    return {path: content if content.endswith("\n") else f"{content}\n" for path, content in zip(parts[1::2], parts[2::2], strict=True)}


def _spoilt(path: str, old: str, new: str) -> str:
    """A change that is made badly: code that does not run, or a place that is not there."""
    if path.endswith(".py"):
        indent = re.match(r"\s*", new)
        return _edit(path, old, f"{indent[0] if indent else ''}not_there()\n{new}")
    return _edit(path, f"{old.rstrip()} indeed\n", new)


def _unmended(old: str, attempt: int) -> str:
    """A change that changes nothing of what the code does."""
    return f"{old.rstrip()}  # looked at {attempt}\n"


def _without_numbers(text: str) -> str:
    """A text without the numbers that `view` puts before lines."""
    return re.sub(r"^ *\d+ ", "", text, flags=re.MULTILINE)


def _replacement(turn: str) -> str:
    """What an edit put in place."""
    return turn.partition("=======\n")[2].partition(">>>>>>> REPLACE")[0]


def _edit(path: str, old: str, new: str) -> str:
    return _action(f"edit {path}\n<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE")


def _action(text: str) -> str:
    return f"{OPEN}\n{text}\n{CLOSE}"
