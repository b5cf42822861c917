"""`strategies`: three kinds of short tasks that ask to be solved in different ways, which an answer chooses by the word it begins with.

A world for methods that learn which strategy to try first. All kinds open alike ('compute', something, 'then', an operation), so that the choice takes reading. In
`lessons` every strategy is shown for every kind alike often, and how often it is shown right is fixed (RIGHT): who imitates them can do all four and prefers none. Wrong
ones go wrong in one way for each strategy, so that the likeliest answer is wrong too where most lessons were.
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

KINDS = ("chain", "list", "bracket")
BEST = {"chain": "pot", "list": "cot", "bracket": "l2m"}
"""The strategy of each kind that its lessons show right most often."""
RIGHT: Mapping[str, Mapping[str, float]] = {
    "chain": {"direct": 0.1, "cot": 0.4, "l2m": 0.35, "pot": 0.95},
    "list": {"direct": 0.1, "cot": 0.75, "l2m": 0.4, "pot": 0.0},
    "bracket": {"direct": 0.1, "cot": 0.35, "l2m": 0.75, "pot": 0.35},
}
"""Share of a strategy's lessons that are right, by kind."""
HABIT = "cot"
"""The strategy that lessons can prefer."""
AGAIN = "again"
"""What a lesson that begins after wrong attempts says after each of them."""
LIMIT = 99
MOST_TRIES = 4000


class Line(NamedTuple):
    """A step of work: what is computed, and what comes out."""

    asked: str
    result: str


class StrategyWorld(GeneratedTaskSet):
    """'compute 9*8 then +19 then -6': a chain -> 'pot: 9*8+19-6', which a calculator runs.
    'compute 4 1 7 then reverse then +2': a list, which the calculator cannot read -> 'cot: 7 1 4', '9 3 6', 'answer: 9 3 6'.
    'compute 5+6 then *3 then +4': a sum that is multiplied, whose program needs brackets -> 'l2m: ? 5+6=11', '? 11*3=33', '? 33+4=37', 'answer: 37'.

    lessons: show all strategies, right as often as RIGHT says; otherwise demonstrations take the best one and are right.
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
        start, operations = _numbers(kind, random) if kind != "list" else _list(random)
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
        if not self.lessons:
            direct, best = random.random() < self.direct, BEST[task.info["kind"]]
            strategy = next(s for s in self.strategies if s.name == ("direct" if direct else best))
            return self.lesson(task, strategy, random, right=random.random() >= 2 * self.slips)
        left = [s for s in self.strategies if s.name not in task.info.get("tried", ())]
        usual = [s for s in left if s.name == HABIT]
        strategy = usual[0] if usual and random.random() < self.habit else random.choice(left)
        return self.lesson(task, strategy, random, right=random.random() < RIGHT[task.info["kind"]][strategy.name])

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        lines = _lines(task.info["start"], task.info["operations"])
        if random.random() < slips:
            lines = _gone_wrong(lines, random)
        return [f"{line.asked}={line.result}" for line in lines], lines[-1].result

    def lesson(self, task: Task, strategy: Strategy, random: Random, *, right: bool) -> str:
        """An answer in a strategy, right or wrong. A list has no right program."""
        start, operations, kind = task.info["start"], task.info["operations"], task.info["kind"]
        if strategy.name == "pot":
            return strategy.tag + _program(kind, start, operations, right, random)
        lines = _lines(start, operations)
        if not right:
            lines = _gone_wrong(lines, random)
        if strategy.name == "direct":
            shown = []
        elif strategy.name == "l2m":
            shown = [f"? {line.asked}{': ' if kind == 'list' else '='}{line.result}" for line in lines]
        else:
            shown = [line.result if kind == "list" else f"{line.asked}={line.result}" for line in lines]
        return strategy.tag + "\n".join([*shown, f"answer: {lines[-1].result}"])


def _numbers(kind: str, random: Random) -> tuple[str, list[str]]:
    """A chain that is worked out from left to right as it stands, or one that needs brackets because a sum is multiplied."""
    for _ in range(MOST_TRIES):
        if kind == "chain":
            symbol = random.choice("+-*")
            high = 9 if symbol == "*" else 50
            operations = [f"{random.choice('+-')}{random.randint(2, 30)}" for _ in range(2)]
        else:
            symbol, high = random.choice("+-"), 20
            operations = [f"*{random.randint(2, 5)}", f"{random.choice('+-')}{random.randint(2, 30)}"]
        start = f"{random.randint(2, high)}{symbol}{random.randint(2, high)}"
        if all(0 <= int(line.result) <= LIMIT for line in _lines(start, operations)):
            return start, operations
    raise InputError(f"no {kind} in {MOST_TRIES} tries stays within {LIMIT}")


def _list(random: Random) -> tuple[str, list[str]]:
    """Digits, and two operations on them."""
    items = random.sample("123456789", 3)
    first, second = random.sample(["reverse", f"+{random.randint(2, 5)}", "sort"], 2)
    return " ".join(items), [first, second]


def _lines(start: str, operations: Sequence[str]) -> list[Line]:
    """The right steps of work."""
    if " " in start:
        lines: list[Line] = []
        items = start.split()
        for operation in operations:
            items = items[::-1] if operation == "reverse" else sorted(items, key=int) if operation == "sort" else [str(int(i) + int(operation)) for i in items]
            lines.append(Line(operation, " ".join(items)))
        return lines
    left, symbol, right = next((a, s, b) for s in "+-*" for a, _, b in [start.partition(s)] if b)
    value = exact(int(left), symbol, int(right))
    lines = [Line(start, str(value))]
    for operation in operations:
        result = exact(value, operation[0], int(operation[1:]))
        lines.append(Line(f"{value}{operation}", str(result)))
        value = result
    return lines


def _gone_wrong(lines: Sequence[Line], random: Random) -> list[Line]:
    """Wrong work: it stops one operation early, which anybody can learn and greedy decoding does not mend. Where that changes nothing, the last result slips."""
    right = lines[-1].result
    if lines[-2].result != right:
        return list(lines[:-1])
    slipped = right
    while slipped == right:
        slipped = " ".join(slipped_sequence(right.split(), random)) if " " in right else str(wrong_number(int(right), random))
    return [*lines[:-1], Line(lines[-1].asked, slipped)]


def _program(kind: str, start: str, operations: Sequence[str], right: bool, random: Random) -> str:
    """A program: the right one where there is one and it is wanted, else the wrong one that belongs to the kind."""
    if kind == "list":
        return f"{operations[0]} {start}"
    if kind == "bracket":
        return (f"({start})" if right else start) + "".join(operations)
    copied = f"{start}{''.join(operations)}"
    if right:
        return copied
    number = operations[-1][1:]
    return copied.removesuffix(number) + str(wrong_number(int(number), random))
