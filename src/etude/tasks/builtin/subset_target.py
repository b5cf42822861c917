"""`subset-target`: choose among eight numbers so that the chosen ones add up to a target. An answer that misses is worth something, and can be mended step by step.

Hardly anybody finds the sum at once. But an attempt is told by how much it misses, and often one number more, one less, or an exchange puts it right: a world in which a
policy that takes single good steps gets far by taking many.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.answers import final_answer, follows_convention
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.iterates import REQUESTS, Mode, begun_from
from etude.types import Task

MOST_TRIES = 200
"""Changes drawn until one is better, or worse, as wanted."""
FIRST = 0.25
"""Share of lessons that show a first attempt; the others show a step from one."""
BEGUN_RIGHT = 0.25
"""Of the lessons in improving, the share that begins from a right attempt, which half of them leave as it is."""
CHANGED: Mapping[Mode, tuple[int, int]] = {"improve": (1, 2), "diverge": (2, 4)}
"""How many digits a lesson's step turns over, at least and at most. With `moves` a step of improvement turns one."""
MOVES = ("=\n", "+\n", "-\n")
"""What a step says: the sum stays, grows, shrinks."""


class SubsetTarget(GeneratedTaskSet):
    """'make 075 from 07 30 12 24 05 28 16 21' -> 'answer: 01010001': a digit for each number, 1 where it is taken.

    The reward is the quality of an answer, 1 - min(1, |sum - target| / target); `correct` is 1 for the exact sum alone. An answer of another form is worth 0. `feedback` of an
    attempt is the signed gap, target less sum. Numbers are written with two digits, targets and gaps with three, so that every number has its place, and the digits of an
    attempt stand at one distance from those of the next: a small model copies by place.

    numbers: how many, at least 2. high: largest of them, up to 99.
    lessons: training tasks are a short school instead, to be imitated: first attempts that miss, and steps from an attempt that turn a few digits over, half of them for the
    worse, after the requests of `etude.tasks.iterates` in their short form. A right attempt is left alone every other time. Whoever has gone to it knows the form of a step
    and takes steps at random.
    moves: a step says first which way it changes the sum, in a line of its own: '+', '-', or '=' where it leaves the attempt alone. 'gap +005' -> '+', 'answer: 01011001'.
    The line is not graded. Lessons then teach steps that do as they say, a single digit for an improvement, half of them in the direction of the gap and half against it:
    what is left to learn is which way to go, and when to stop.
    """

    name = "subset-target"
    reward_weights: Mapping[str, float] = {"quality": 1.0}
    instruction = (
        "Choose some of the numbers so that they add up to the number after 'make'. End with a line 'answer: X', where X has a digit for each number in order: 1 if it is "
        "taken, 0 if not. If an attempt is followed by a gap, that is the wanted sum less the sum of the attempt."
    )

    def __init__(self, *, numbers: int = 8, high: int = 30, lessons: bool = False, moves: bool = False, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if numbers < 2 or not 2 <= high <= 99 or numbers * high > 999:
            raise InputError(f"numbers is {numbers}, high {high}; expected at least 2 each, high up to 99 and sums of three digits")
        self.numbers, self.high, self.lessons, self.moves = numbers, high, lessons, moves
        # The marker, a digit for each number, and the end; before them a move and the end of its line.
        self.max_new_tokens = numbers + (6 if moves else 4)

    def draw(self, random: Random) -> Problem:
        given = [random.randint(1, self.high) for _ in range(self.numbers)]
        taken = [0] * self.numbers
        while not 1 < sum(taken) < self.numbers:
            taken = [random.randint(0, 1) for _ in given]
            if self.numbers == 2:
                break
        target = max(1, total(given, taken))
        asked = f"make {target:03d} from {' '.join(f'{n:02d}' for n in given)}"
        return Problem(key=f"{self.name} {asked}", prompt=asked, answer=written(taken), info={"numbers": given, "target": target})

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        gap = self.gap(task, text)
        quality = 0.0 if gap is None else 1 - min(1.0, abs(gap) / task.info["target"])
        return {"correct": float(gap == 0), "quality": quality, "format": float(follows_convention(text))}

    def feedback(self, task: Task, text: str) -> str:
        gap = self.gap(task, text)
        return "error" if gap is None else f"gap {gap:+04d}"

    def gap(self, task: Task, text: str) -> int | None:
        """Target less sum of an attempt; None where it has another form."""
        taken = final_answer(text)
        given = task.info["numbers"]
        if taken is None or len(taken) != len(given) or not set(taken) <= {"0", "1"}:
            return None
        return task.info["target"] - total(given, [int(digit) for digit in taken])

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        # With eight digits a rate of 0.3 spoils about every other answer.
        return [], written([int(digit) ^ (random.random() < slips / 4) for digit in task.answer or ""])

    # Lessons

    def train_task(self, seed: int, index: int) -> Task:
        task = super().train_task(seed, index)
        return self._lesson(task, Random(f"{self.name}/lessons/{seed}/{index}")) if self.lessons else task

    def demonstration(self, task: Task, seed: int) -> str | None:
        lesson = task.info.get("lesson")
        return lesson if lesson is not None else super().demonstration(task, seed)

    def _lesson(self, task: Task, random: Random) -> Task:
        """An attempt that misses as it was asked for at first, or a step from one."""
        attempt = turned_over([int(digit) for digit in task.answer or ""], random.randint(1, min(4, self.numbers)), random)
        shown = f"answer: {written(attempt)}"
        if random.random() < FIRST:
            return Task(task.id, task.messages, None, {**task.info, "lesson": shown})
        mode: Mode = random.choice(("improve", "diverge"))
        if mode == "improve" and random.random() < BEGUN_RIGHT:
            shown = f"answer: {task.answer}"
            attempt = [int(digit) for digit in task.answer or ""]
        if self.moves and random.random() < 0.5:
            shown = random.choice(MOVES) + shown  # The attempt was a step itself.
        asked = begun_from(task, shown, REQUESTS["short"][mode], self.feedback(task, shown), author="lesson").opening
        step = self._step(task, attempt, mode, better=random.random() < 0.5, random=random)
        said = move(task.info["numbers"], attempt, step) if self.moves else ""
        return Task(task.id, asked, None, {**task.info, "lesson": f"{said}answer: {written(step)}"})

    def _step(self, task: Task, attempt: list[int], mode: Mode, *, better: bool, random: Random) -> list[int]:
        """An attempt with some digits turned over, so that it misses by less, or by no less; where no such change is found, any. A right one is best left.

        With `moves` its sum goes up or down, in the direction of the gap, or against it.
        """
        given, target = task.info["numbers"], task.info["target"]
        gap = target - total(given, attempt)
        if better and not gap and mode == "improve":
            return attempt
        least, most = (1, 1) if self.moves and mode == "improve" else CHANGED[mode]
        step = attempt
        for _ in range(MOST_TRIES):
            step = turned_over(attempt, min(self.numbers, random.randint(least, most)), random)
            if self._wanted(gap, target - total(given, step), better):
                break
        return step

    def _wanted(self, gap: int, left: int, better: bool) -> bool:
        """Whether a step from one gap to another is what a lesson wants to show."""
        if not self.moves:
            return (abs(left) < abs(gap)) == better
        change = gap - left
        return change != 0 and (gap == 0 or (change * gap > 0) == better)


def total(given: list[int], taken: list[int]) -> int:
    """The sum of the numbers that are taken."""
    return sum(n * digit for n, digit in zip(given, taken, strict=True))


def move(given: list[int], before: list[int], after: list[int]) -> str:
    """The line that says which way a step changes the sum."""
    change = total(given, after) - total(given, before)
    stays, grows, shrinks = MOVES
    return grows if change > 0 else shrinks if change else stays


def written(taken: list[int]) -> str:
    """An answer's digits."""
    return "".join(map(str, taken))


def turned_over(taken: list[int], count: int, random: Random) -> list[int]:
    """An answer with `count` of its digits turned over."""
    places = set(random.sample(range(len(taken)), count))
    return [1 - digit if place in places else digit for place, digit in enumerate(taken)]
