"""Strategies: ways of solving that an answer names by the words it begins with, such as `pot: ` for a program whose output is the answer.

An answer "pot: 37*84+519" is judged by what the program gives, every other one as it stands. `Strategic` does this around tasks of any kind (`--env strategies`), so that a
program is run wherever such answers are judged: in training, in an evaluation, and in a vote over answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from etude.errors import InputError
from etude.sandbox import Limits, Sandbox, open_sandbox
from etude.tasks.around import Around, in_single_turns
from etude.tasks.base import TaskSet
from etude.tasks.builtin.calculator import plain_number
from etude.tasks.builtin.expressions import evaluate
from etude.tasks.python_tool import OPEN, called_code
from etude.tasks.templates import filled
from etude.types import Message, Task, Trajectory

Program = Literal["", "python", "calculator"]
"""What runs the answers of a strategy: nothing, the safe Python interpreter, or a calculator of one expression with + - * / and brackets."""


@dataclass(frozen=True)
class Strategy:
    """A way of solving. tag: what its answers begin with. instruction: asks a model for it that has not learnt the tags; with {question} in it it is the whole prompt,
    examples and all; without, it stands before the question; empty where the tag says enough. program: what runs its answers."""

    name: str
    tag: str
    instruction: str = ""
    program: Program = ""

    def asked(self, task: Task) -> tuple[Message, ...]:
        """The task's messages, with the instruction in the last one by the user."""
        if not self.instruction:
            return task.opening
        place = max((i for i, m in enumerate(task.opening) if m.role == "user"), default=len(task.opening) - 1)
        question = task.opening[place]
        whole = self.instruction if "{question}" in self.instruction else f"{self.instruction}\n\n{{question}}"
        return (*task.opening[:place], Message(question.role, filled(whole, {"question": question.content})), *task.opening[place + 1 :])


_END = "End with a line 'answer: X'."
STANDARD = (
    Strategy("direct", "Direct answer.\n", "Answer the question at once, without any working, in one line 'answer: X'."),
    Strategy("cot", "Step by step.\n", f"Solve the question step by step, one step to a line. {_END}"),
    Strategy(
        "l2m", "Smaller questions first.\n", f"Split the question into smaller ones, from the easiest on. Ask and answer each in a line of its own. {_END}"
    ),
    Strategy(
        "pot", "By a program.\n", "Write a Python program, between <python> and </python>, that prints the answer to the question and nothing else.", "python"
    ),
)
"""For models that follow instructions."""
SHORT = (Strategy("direct", "direct: "), Strategy("cot", "cot: "), Strategy("l2m", "l2m: "), Strategy("pot", "pot: ", "", "calculator"))
"""For small models, which have to be taught what the tags mean (the built-in tasks `strategies` do)."""
NAMED: Mapping[str, tuple[Strategy, ...]] = {"standard": STANDARD, "short": SHORT}


def load_strategies(spec: str) -> tuple[Strategy, ...]:
    """The strategies that a name of NAMED or a YAML file gives.

    A file holds a list of mappings with `name`, `tag` and, where wanted, `instruction` and `program`. Raises InputError for a file that cannot be read, wrong entries, and
    tags of which one begins another: nobody could tell which was meant.
    """
    return NAMED.get(spec) or _from_file(spec)


def _from_file(spec: str) -> tuple[Strategy, ...]:
    expected = f"expected {', '.join(NAMED)}, or a YAML file with a list of strategies, each with a name and a tag, and if wanted an instruction and a program"
    try:
        entries = yaml.safe_load(Path(spec).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"strategies are {spec!r}, which cannot be read: {getattr(error, 'strerror', None) or 'no YAML'}; {expected}") from error
    known = [field.name for field in fields(Strategy)]
    if not isinstance(entries, list) or not entries:
        raise InputError(f"the file {spec} holds no list of strategies; {expected}")
    for entry in entries:
        if not isinstance(entry, dict) or not {"name", "tag"} <= entry.keys() <= set(known) or not all(isinstance(v, str) for v in entry.values()):
            raise InputError(f"the file {spec} has an entry {entry!r}; {expected}, all of them texts")
        if entry.get("program", "") not in get_args(Program) or not entry["name"] or not entry["tag"].strip():
            raise InputError(
                f"the strategy {entry['name']!r} of {spec}: expected a name, a tag, and for program one of {', '.join(filter(None, get_args(Program)))}"
            )
    strategies = tuple(Strategy(**entry) for entry in entries)
    if len({s.name for s in strategies}) < len(strategies):
        raise InputError(f"the file {spec} has two strategies of one name; expected different ones")
    for one in strategies:
        for other in strategies:
            if one is not other and other.tag.startswith(one.tag):
                raise InputError(f"the tag of {one.name!r} in {spec} begins that of {other.name!r}; expected tags that can be told apart")
    return strategies


def strategy_of(text: str, strategies: Sequence[Strategy]) -> Strategy | None:
    """The strategy whose tag an answer begins with."""
    return next((s for s in strategies if text.startswith(s.tag)), None)


def outcome(text: str, strategies: Sequence[Strategy], sandbox: Sandbox | None = None) -> str:
    """What an answer comes to: as it is, or, for a program, with what that gives in a line 'answer: X' behind it. A program that fails comes to nothing, ''."""
    strategy = strategy_of(text, strategies)
    if strategy is None or not strategy.program:
        return text
    value = _run(text.removeprefix(strategy.tag), strategy.program, sandbox)
    return "" if value is None else f"{text}\nanswer: {value}"


def _run(solution: str, program: Program, sandbox: Sandbox | None) -> str | None:
    """What a program gives, None where it fails: the value of the expression, or the last line that Python printed."""
    if program == "calculator":
        try:
            return plain_number(evaluate(solution.strip()))
        except ValueError:
            return None
    assert sandbox is not None, "Python programs need a sandbox"
    # Without the marks all of it is the program, a fence around it taken off.
    code = called_code(solution if OPEN in solution else OPEN + solution)
    result = sandbox.run([code or ""])[0]
    shown = f"{result.stdout}\n{result.value or ''}".strip()
    return shown.splitlines()[-1] if result.ok and shown else None


class Strategic(Around):
    """A task set whose answers may begin with the tag of a strategy: programs are run before they are judged."""

    def __init__(self, tasks: TaskSet, strategies: Sequence[Strategy], *, seconds: float = 4.0) -> None:
        """seconds: what a Python program may take. Raises InputError for tasks that have an environment."""
        super().__init__(in_single_turns(tasks, "strategies are ways of answering tasks of single turns"))
        self.strategies = tuple(strategies)
        self._sandbox = open_sandbox("safe", limits=Limits(seconds=seconds)) if any(s.program == "python" for s in strategies) else None
        # A tag has no more tokens than characters.
        self.max_new_tokens = tasks.max_new_tokens + max(len(s.tag) for s in self.strategies)

    @classmethod
    def named(cls, spec: str, tasks: TaskSet) -> TaskSet:
        """From `strategies`, which are the standard ones, or `strategies:short`, or `strategies:FILE.yaml`."""
        return cls.around(tasks, load_strategies(spec.partition(":")[2] or "standard"))

    @classmethod
    def around(cls, tasks: TaskSet, strategies: Sequence[Strategy]) -> TaskSet:
        """The tasks as they are, where they judge answers in these strategies by themselves; otherwise with this around them."""
        return tasks if strategies_in(tasks) == tuple(strategies) else cls(tasks, strategies)

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return self.tasks.verify(task, outcome(text, self.strategies, self._sandbox))

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        come_to = [replace(s, text=outcome(s.text, self.strategies, self._sandbox)) if s.author == "policy" else s for s in trajectory.segments]
        return self.tasks.verify_trajectory(replace(trajectory, segments=come_to))

    def answer_in(self, text: str) -> str | None:
        return self.tasks.answer_in(outcome(text, self.strategies, self._sandbox))


def strategies_in(tasks: TaskSet) -> tuple[Strategy, ...] | None:
    """The strategies whose answers a task set judges by itself; None where it knows of none."""
    known: Any = getattr(tasks, "strategies", None)
    return known if isinstance(known, tuple) and all(isinstance(s, Strategy) for s in known) else None
