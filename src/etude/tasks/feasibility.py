"""Can you do this? Prompts that have a model write tasks at the limit of its abilities and judge tasks without doing them, and the readers of what it answers.

The words are templates, so that a user can change them for a model: `Prompts.load` takes a YAML file. `STANDARD` is for instruction-tuned models, `SHORT` for models
that read little, such as `tiny`, which has to be taught the form first (the family `can-and-cannot` has the lessons).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import yaml

from etude.errors import InputError, nearest
from etude.tasks.base import TaskSet
from etude.tasks.jsonl import JsonlTaskSet
from etude.tasks.loading import load_tasks
from etude.types import Message, Task

Label = Literal["feasible", "infeasible"]
LABELS: tuple[Label, Label] = ("feasible", "infeasible")
BUILT_IN = Path(__file__).parent.parent / "assets" / "feasibility.jsonl"
"""Fifty tasks of each kind to learn from and twenty-four of each to measure on, for a language model that reads and writes text and has nothing else."""
READS_LITTLE = 1024
"""Tokens of context below which the short prompts are the default."""
LONGEST_TASK = 600
"""Characters of a task at most; what is longer is no task of one line."""
_ITEM = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s+(?P<task>\S.*)$")
_WRAPPING = " \t*`\"'"


@dataclass(frozen=True)
class Example:
    """A task as it would be asked, and whether the model can do it."""

    text: str
    label: Label


@dataclass(frozen=True)
class Prompts:
    """What the model is asked, and in which words it answers.

    write_feasible, write_infeasible: ask for tasks; {examples} and {count} are filled in. analyse: asks for a verdict on {task}; {first} and {second}, where it has them,
    are the two words, whose order can be turned round to see whether it matters.
    feasible, infeasible: the words of a verdict. marker: what stands before it on the last line; empty where the whole answer is the word.
    example, separator: how an example is written, and what stands between two. count: tasks asked for at once; with 1 the whole answer is the task, otherwise a list.
    write_tokens, verdict_tokens: tokens that an answer may have.
    """

    write_feasible: str
    write_infeasible: str
    analyse: str
    feasible: str = "feasible"
    infeasible: str = "infeasible"
    marker: str = "verdict:"
    example: str = "- {task}"
    separator: str = "\n"
    count: int = 5
    write_tokens: int = 512
    verdict_tokens: int = 256

    @classmethod
    def load(cls, spec: str, context_length: int) -> Prompts:
        """`standard`, `short`, `auto` (by how much the model reads), or a YAML file whose fields replace those of the standard ones.

        Raises InputError for a file that cannot be used, naming the field.
        """
        if spec == "auto":
            spec = "short" if context_length < READS_LITTLE else "standard"
        if spec in _KNOWN:
            return _KNOWN[spec]
        path = Path(spec).expanduser()
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"the prompts {spec!r} can't be read: {error}; expected auto, {', '.join(_KNOWN)} or a YAML file") from error
        return _checked(given, str(path))

    def writing(self, claim: Label, shots: Sequence[str]) -> tuple[Message, ...]:
        """The request for new tasks of one kind, with examples of that kind."""
        template = self.write_feasible if claim == "feasible" else self.write_infeasible
        examples = self.separator.join(self.example.format(task=shot) for shot in shots)
        return (Message("user", template.format(examples=examples, count=self.count).rstrip()),)

    def analysis(self, text: str, *, swapped: bool = False) -> tuple[Message, ...]:
        """The request for a verdict. Nothing in it says what the task's writer claimed. swapped: name the two words in the other order."""
        first, second = (self.infeasible, self.feasible) if swapped else (self.feasible, self.infeasible)
        return (Message("user", self.analyse.format(task=text, first=first, second=second)),)

    @property
    def names_both(self) -> bool:
        """Whether the request for a verdict names the two words, so that their order could matter."""
        return {"first", "second"} <= _places(self.analyse)

    def verdict(self, text: str) -> Label | None:
        """The one verdict that an answer ends with, None for anything else: two verdicts, words behind it, or hedging ('mostly feasible') count as none.

        Were a hedge a verdict, hedging would be the easy way to agree with oneself.
        """
        words: Mapping[str, Label] = {self.feasible.casefold(): "feasible", self.infeasible.casefold(): "infeasible"}
        lines = [line.replace("*", "").replace("`", "").strip() for line in text.strip().splitlines() if line.strip()]
        if not lines:
            return None
        if not self.marker:
            return words.get(lines[0].casefold()) if len(lines) == 1 else None
        marker = self.marker.casefold()
        if sum(line.casefold().count(marker) for line in lines) != 1 or not lines[-1].casefold().startswith(marker):
            return None
        return words.get(lines[-1][len(marker) :].strip(_WRAPPING + ".").casefold())

    def tasks_in(self, text: str) -> tuple[list[str], int]:
        """The tasks in what the model wrote, and how many lines of it are none: not an item of the list, empty, or too long."""
        lines = [line for line in text.strip().splitlines() if line.strip()]
        found = listed(text)[0] if self.count > 1 else [line.strip() for line in lines if len(lines) == 1]
        good = [task for task in found if 1 < len(task) <= LONGEST_TASK]
        return good, len(lines) - len(good)


_SELF = "You read text and write text. You have no tools, no internet, no clock, no files and no memory of other conversations."
STANDARD = Prompts(
    write_feasible=f"""You are a language model that examines its own abilities. {_SELF}

Write {{count}} new tasks that you are sure you can do well. Let them differ in subject and kind, and make them as hard as they can be while you are still sure.

Examples of such tasks:
{{examples}}

Give one task a line, numbered, without solutions and without remarks.""",
    write_infeasible=f"""You are a language model that examines its own abilities. {_SELF}

Write {{count}} new tasks that you are sure you cannot do: whatever you answered would be wrong, made up or beside the point. Let them differ in subject and reason, and
word them like ordinary requests, so that the wording does not give them away.

Examples of such tasks:
{{examples}}

Give one task a line, numbered, without remarks.""",
    analyse=f"""Somebody may give you the task below. Do not do it. Judge whether you could. {_SELF}

Task: {{task}}

Think about what the task takes, in two or three sentences. Then end with one line that is either "verdict: {{first}}" or "verdict: {{second}}".""",
)
SHORT = Prompts(
    write_feasible="F: {examples}",
    write_infeasible="I: {examples}",
    analyse="can? {task}",
    feasible="F",
    infeasible="I",
    marker="",
    example="{task}",
    separator="; ",
    count=1,
    write_tokens=24,
    verdict_tokens=3,
)
_KNOWN = {"standard": STANDARD, "short": SHORT}
_PLACES = {
    "write_feasible": ({"examples"}, {"count"}),
    "write_infeasible": ({"examples"}, {"count"}),
    "analyse": ({"task"}, {"first", "second"}),
    "example": ({"task"}, set[str]()),
}
"""Fields that are templates: what each has to have, and what else it may have."""


def _checked(given: Any, source: str) -> Prompts:
    if not isinstance(given, dict):
        raise InputError(f"the prompts in {source} are a {type(given).__name__}; expected a mapping of fields, for example 'analyse: ...'")
    kinds = {f.name: type(getattr(STANDARD, f.name)) for f in fields(Prompts)}
    for name, value in given.items():
        if name not in kinds:
            raise InputError(f"{source}: there is no field {name!r}.{nearest(str(name), kinds)} Expected {', '.join(kinds)}")
        if type(value) is not kinds[name] or (kinds[name] is int and value < 1):
            raise InputError(f"{source}: {name} is {value!r}; expected {'a whole number, 1 or more' if kinds[name] is int else 'a text'}")
        if name in _PLACES:
            needed, possible = _PLACES[name]
            try:
                found = _places(value)
            except ValueError as error:
                raise InputError(f"{source}: {name} is no template: {error}; write {{{{ and }}}} for braces that are meant") from error
            if not needed <= found <= needed | possible:
                wanted = ", ".join(f"{{{place}}}" for place in sorted(needed))
                raise InputError(f"{source}: {name} has the places {sorted(found)}; expected {wanted}" + (f", perhaps {sorted(possible)}" if possible else ""))
    prompts = replace(STANDARD, **given)
    if prompts.feasible.strip().casefold() == prompts.infeasible.strip().casefold() or not prompts.feasible.strip() or not prompts.infeasible.strip():
        raise InputError(f"{source}: the words of a verdict are {prompts.feasible!r} and {prompts.infeasible!r}; expected two different ones")
    return prompts


def _places(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def listed(text: str) -> tuple[list[str], int]:
    """The items of a numbered or bulleted list, without their marks, and how many lines are none."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    items = [match["task"].strip(_WRAPPING) for line in lines if (match := _ITEM.match(line))]
    return items, len(lines) - len(items)


def plain(text: str) -> str:
    """A task as it is compared with others: case and white space aside."""
    return " ".join(text.casefold().split())


def read_examples(spec: str) -> tuple[list[Example], list[Example]]:
    """Labelled tasks from a JSONL file (or two, `train.jsonl,test.jsonl`) whose answers are `feasible` or `infeasible`, or those that are built in (`built-in`).

    Returns those to learn from and those held out. Raises InputError where an answer is neither.
    """
    tasks = JsonlTaskSet(BUILT_IN) if spec == "built-in" else load_tasks(spec)
    if not isinstance(tasks, JsonlTaskSet):
        raise InputError(f"the labelled tasks {spec!r} are no JSONL file; expected one whose answers are feasible or infeasible, or built-in")
    train = [_example(tasks.train_task(0, i), spec) for i in range(tasks.train_size)]
    held_out = [_example(task, spec) for task in tasks.held_out()]
    for label in LABELS:
        if not any(e.label == label for e in train):
            raise InputError(f"{spec} has no task to learn from with the answer {label!r}; expected some of both kinds")
    return train, held_out


def _example(task: Task, spec: str) -> Example:
    known: dict[str, Label] = {label: label for label in LABELS}
    label = known.get(plain(task.answer or ""))
    if label is None:
        raise InputError(f"{spec}: the answer of task {task.id!r} is {task.answer!r}; expected feasible or infeasible")
    return Example(task.prompt, label)


def balanced(examples: Sequence[Example], size: int) -> list[Example]:
    """`size` examples at most, as many of either class as there are, in their order."""
    most = {label: sum(e.label == label for e in examples) for label in LABELS}
    half = {label: max(size // 2, size - most[other]) for label, other in zip(LABELS, reversed(LABELS), strict=True)}
    chosen: list[Example] = []
    for example in examples:
        if len(chosen) < size and sum(e.label == example.label for e in chosen) < half[example.label]:
            chosen.append(example)
    return chosen


class Verdicts(TaskSet):
    """Tasks to be judged and not to be done: whether the verdict is the label's, where there is one. The final answer of an attempt is its verdict."""

    name = "verdicts"

    def __init__(self, prompts: Prompts, examples: Sequence[Example] = ()) -> None:
        self.prompts = prompts
        self.max_new_tokens = prompts.verdict_tokens
        self.examples = list(examples)

    def task(self, text: str, label: Label | None = None, *, id: str, swapped: bool = False, **info: Any) -> Task:
        """The request for a verdict on a task; its reference answer is the label."""
        return Task(id, self.prompts.analysis(text, swapped=swapped), label, {"text": text, **info})

    def train_task(self, seed: int, index: int) -> Task:
        example = self.examples[index % len(self.examples)]
        return self.task(example.text, example.label, id=f"verdicts/{index % len(self.examples)}")

    def held_out(self) -> list[Task]:
        return [self.task(e.text, e.label, id=f"verdicts/{i}") for i, e in enumerate(self.examples)]

    def answer_in(self, text: str) -> str | None:
        return self.prompts.verdict(text)

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        verdict = self.prompts.verdict(text)
        return {"correct": math.nan if task.answer is None else float(verdict == task.answer), "format": float(verdict is not None)}
