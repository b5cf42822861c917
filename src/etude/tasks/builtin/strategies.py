"""`strategies`: three kinds of short tasks that ask to be solved in different ways, which an answer chooses by the word it begins with.

A world for methods that learn which strategy to try first. All kinds open alike ('compute', something, 'then', an operation), so that the choice takes reading. What a
strategy can do lies in its form, not in how well it was shown: step by step (`cot`) takes two operations on numbers in one line, which a small model often gets wrong
however long it practises, and one on lists; smaller questions (`l2m`) take one at a time; a program (`pot`) is run by a calculator, which knows neither lists nor `max`. In
`lessons` every strategy is shown for every kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import ClassVar, NamedTuple, Unpack

from etude.errors import InputError
from etude.tasks.answers import normalise
from etude.tasks.builtin.expressions import exact
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import slipped_sequence, wrong_number
from etude.tasks.strategies import SHORT, Strategy, outcome
from etude.types import Message, Task

KINDS = ("chain", "list", "larger")
BEST = {"chain": "pot", "list": "cot", "larger": "l2m"}
"""The strategy that suits each kind best."""
HABIT = "cot"
"""The strategy that lessons can prefer."""
AGAIN = "again"
"""What a lesson that begins after wrong attempts says after each of them."""
LARGER = "max "
"""What a task of the larger of two results begins with."""
LIMIT = 99
MOST_TRIES = 4000


class Line(NamedTuple):
    """A step of work: what is computed, and what comes out."""

    asked: str
    result: str


class StrategyWorld(GeneratedTaskSet):
    """'compute 9*8 then +19 then -6': a chain -> 'pot: 9*8+19-6', which a calculator runs.
    'compute 4 1 7 then reverse then +2': a list, which the calculator cannot read -> 'cot: 7 1 4', '9 3 6', 'answer: 9 3 6'.
    'compute max 5+6 4*3 then +4': the larger of two results -> 'l2m: ? 5+6=11', '? 4*3=12', '? max 11 12=12', '? 12+4=16', 'answer: 16'.

    lessons: show all strategies; otherwise demonstrations take the best one. Both go wrong with probability `slips`, and a program for a list or a maximum always.
    again: share of the training tasks of lessons that begin after one to three wrong attempts in other strategies.
    habit: share of the lessons that go step by step (`cot`) wherever that has not failed yet; the others are in all strategies alike often.
    """

    name = "strategies"
    max_new_tokens = 60
    instruction: ClassVar[str] = (
        "Compute from left to right. Begin with 'direct: ', 'cot: ', 'l2m: ' and end with a line 'answer: X', or begin with 'pot: ' and write one expression."
    )
    strategies: ClassVar[tuple[Strategy, ...]] = SHORT

    def __init__(self, *, lessons: bool = False, again: float = 0.0, habit: float = 0.0, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        for name, share in {"again": again, "habit": habit}.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share}; expected a share in [0, 1]")
        if (again or habit) and not lessons:
            raise InputError("again and habit are shares of lessons; expected lessons=true with them")
        self.lessons, self.again, self.habit = bool(lessons), again, habit

    # Problems

    def draw(self, random: Random) -> Problem:
        kind = random.choice(KINDS)
        start, operations = _list(random) if kind == "list" else _numbers(kind, random)
        prompt = " then ".join([f"compute {start}", *operations])
        info = {"kind": kind, "start": start, "operations": operations}
        return Problem(key=f"strategies {prompt}", prompt=prompt, answer=_lines(start, operations)[-1].result, info=info)

    def judge(self, task: Task, answer: str) -> bool:
        return [normalise(item) for item in answer.replace(",", " ").split()] == (task.answer or "").split()

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return super().verify(task, outcome(text, self.strategies))

    def answer_in(self, text: str) -> str | None:
        return super().answer_in(outcome(text, self.strategies))

    # Demonstrations

    def train_task(self, seed: int, index: int) -> Task:
        task = super().train_task(seed, index)
        random = Random(f"{task.id}/again")
        if random.random() >= self.again:
            return task
        tried = random.sample(self.strategies, random.randint(1, len(self.strategies) - 1))
        wrong = (self.lesson(task, strategy, random, right=False) for strategy in tried)
        said = [m for text in wrong for m in (Message("assistant", text), Message("user", AGAIN))]
        return Task(task.id, (*task.messages, *said), task.answer, {**task.info, "tried": [s.name for s in tried]})

    def demonstration(self, task: Task, seed: int) -> str | None:
        random = Random(f"{task.id}/demonstration/{seed}")
        right = random.random() >= self.slips
        if not self.lessons:
            wanted = "direct" if random.random() < self.direct else BEST[task.info["kind"]]
            return self.lesson(task, next(s for s in self.strategies if s.name == wanted), random, right=right)
        left = [s for s in self.strategies if s.name not in task.info.get("tried", ())]
        usual = [s for s in left if s.name == HABIT]
        return self.lesson(task, usual[0] if usual and random.random() < self.habit else random.choice(left), random, right=right)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        lines = _lines(task.info["start"], task.info["operations"])
        if random.random() < slips:
            lines = _gone_wrong(lines, random)
        return [f"{line.asked}={line.result}" for line in lines], lines[-1].result

    def lesson(self, task: Task, strategy: Strategy, random: Random, *, right: bool) -> str:
        """An answer in a strategy, right or wrong. Lists and maxima have no right program."""
        start, operations, kind = task.info["start"], task.info["operations"], task.info["kind"]
        if strategy.name == "pot":
            return strategy.tag + _program(kind, start, operations, right, random)
        lines = _lines(start, operations)
        if strategy.name == "l2m" and kind == "list":
            lines = [*(Line(str(place), item) for place, item in enumerate(lines[-1].result.split(), 1)), lines[-1]]
        elif strategy.name == "cot" and kind != "list":
            lines = _two_at_once(start, operations, lines)
        if not right:
            lines = _gone_wrong(lines, random)
        if strategy.name == "direct":
            shown = []
        elif kind == "list":
            shown = [line.result for line in lines] if strategy.name == "cot" else [f"? {line.asked}: {line.result}" for line in lines[:-1]]
        else:
            shown = [f"{'? ' if strategy.name == 'l2m' else ''}{line.asked}={line.result}" for line in lines]
        return strategy.tag + "\n".join([*shown, f"answer: {lines[-1].result}"])


def _numbers(kind: str, random: Random) -> tuple[str, list[str]]:
    """Operations on numbers one after the other, or on the larger of two results."""
    for _ in range(MOST_TRIES):
        if kind == "chain":
            start, count = f"{random.randint(2, 12)}{random.choice('+-')}{random.randint(1, 2)}", 2
        else:
            pair = [f"{random.randint(2, 12)}{random.choice('+-')}{random.randint(2, 6)}" for _ in range(2)]
            start, count = f"max {' '.join(pair)}", 1
        operations = [f"{random.choice('+-')}{random.randint(2, 9)}" for _ in range(count)]
        if all(0 <= int(line.result) <= LIMIT for line in _lines(start, operations)):
            return start, operations
    raise InputError(f"no {kind} in {MOST_TRIES} tries stays within {LIMIT}")


def _list(random: Random) -> tuple[str, list[str]]:
    """Digits, and two operations on them."""
    items = random.sample("123456", 3)
    first, second = random.sample(["reverse", f"+{random.randint(2, 3)}"], 2)
    return " ".join(items), [first, second]


def _lines(start: str, operations: Sequence[str]) -> list[Line]:
    """The right steps of work, one operation each."""
    lines: list[Line] = []
    if start[0].isdigit() and " " in start:
        items = start.split()
        for operation in operations:
            items = items[::-1] if operation == "reverse" else [str(int(i) + int(operation)) for i in items]
            lines.append(Line(operation, " ".join(items)))
        return lines
    for sum_of_two in start.removeprefix(LARGER).split():
        left, symbol, right = next((a, s, b) for s in "+-" for a, _, b in [sum_of_two.partition(s)] if b)
        lines.append(Line(sum_of_two, str(exact(int(left), symbol, int(right)))))
    value = max(int(line.result) for line in lines)
    if start.startswith(LARGER):
        lines.append(Line(LARGER + " ".join(line.result for line in lines), str(value)))
    for operation in operations:
        result = exact(value, operation[0], int(operation[1:]))
        lines.append(Line(f"{value}{operation}", str(result)))
        value = result
    return lines


def _two_at_once(start: str, operations: Sequence[str], lines: Sequence[Line]) -> list[Line]:
    """The right steps on numbers, the first of them with two operations at once, or two sums and which of them is larger."""
    if start.startswith(LARGER):
        return [Line(start, lines[2].result), *lines[3:]]
    return [Line(start + operations[0], lines[1].result), *lines[2:]]


def _gone_wrong(lines: Sequence[Line], random: Random) -> list[Line]:
    """The work with a slip in its last result."""
    right = lines[-1].result
    slipped = right
    while slipped == right:
        slipped = " ".join(slipped_sequence(right.split(), random)) if " " in right else str(wrong_number(int(right), random))
    return [*lines[:-1], Line(lines[-1].asked, slipped)]


def _program(kind: str, start: str, operations: Sequence[str], right: bool, random: Random) -> str:
    """A program: the task as it stands, which a calculator can read only for a chain, or one with a wrong number."""
    copied = f"{start}{''.join(operations)}"
    if kind != "chain" or right:
        return copied
    number = operations[-1][1:]
    return copied.removesuffix(number) + str(wrong_number(int(number), random))
