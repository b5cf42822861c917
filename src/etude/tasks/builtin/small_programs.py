"""`small-programs`: stories about numbers, solved by programs in a small language, in rounds of writing, running and checking.

    tom has 12 pens, buys or loses 5 and finds 8. how many now? ends in 5
    <calc>a=12+5;b=a+8;out b</calc>                                         -> 25
    12 5 8 ok
    5-5=0 ok
    answer: 25

What happened is not always told: `buys or loses 5` is one of the two, and which one shows only in the last digit of the result. So a first program is often wrong without
being careless, running it tells, and a program alone cannot know. The check has two lines: the numbers that the program uses, which have to be the story's; and the
output's last digit less the one that is asked for, since a model that can subtract need not learn to see whether two digits are one. `tiny` was not taught the task:
imitate first.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Unpack

from etude.errors import InputError
from etude.tasks.base import Environment
from etude.tasks.builtin.expressions import exact
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.builtin.slips import wrong_number
from etude.tasks.program_rounds import ProgramEnvironment, SmallPrograms, checked_rounds, judge_rounds
from etude.tasks.small_language import numbers_of, run_program
from etude.types import Message, Task, Trajectory

FIRST = {"+": ", buys {n}", "-": ", loses {n}", "?": ", buys or loses {n}"}
SECOND = {"+": " and finds {n}", "-": " and gives away {n}", "?": " and finds or loses {n}"}
"""What happens first and second; `?` is what might be either."""
_NAMES = ("tom", "ana", "kim", "lee")
_THINGS = ("apples", "pens", "coins", "books")


class SmallProgramTasks(GeneratedTaskSet):
    """Two or three operations a story, each a statement of the program.

    high: largest number. factor_high: largest factor. vague: share of the happenings that are told as one of two. wrong_first: share of the lessons that begin with a wrong
    program. wrong_again: of these, the share that goes on to another wrong one. rounds: programs of an episode at most. verify: without it an episode is one program, and
    its output the answer: what remains when nothing is checked; its lessons are right programs.
    """

    name = "small-programs"
    environment_weights = GeneratedTaskSet.reward_weights
    instruction = (
        "Write a program such as <calc>a=12-5;b=a+8;out b</calc> and stop: you are told what it puts out. Check the numbers it uses and the last digit it gives, and write "
        "another one where they do not fit. Else end with a line 'answer: X'."
    )

    def __init__(
        self,
        *,
        high: int = 20,
        factor_high: int = 6,
        vague: float = 0.4,
        wrong_first: float = 0.3,
        wrong_again: float = 1 / 3,
        rounds: int = 3,
        verify: bool = True,
        **options: Unpack[FamilyOptions],
    ) -> None:
        super().__init__(**options)
        if high < 6 or factor_high < 2:
            raise InputError(f"high is {high}, factor_high {factor_high}; expected at least 6 and 2")
        for name, share in {"vague": vague, "wrong_first": wrong_first, "wrong_again": wrong_again}.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share}; expected a share in [0, 1]")
        self.high, self.factor_high, self.vague, self.wrong_first, self.wrong_again = high, factor_high, vague, wrong_first, wrong_again
        self.rounds, self.verifying = checked_rounds(rounds, verify), verify
        self.language = SmallPrograms()
        self.max_turns = self.rounds + 1 if verify else 1
        self.stop = (self.language.closing,)
        digits = len(str(high))
        # A check of four numbers, and a program of three statements.
        self.max_new_tokens = 7 * digits + 47 if verify else 3 * digits + 28

    def draw(self, random: Random) -> Problem:
        while True:
            factors = [random.randint(2, self.factor_high) for _ in range(2)] if random.random() < 0.5 else []
            start = factors or [random.randint(2, self.high)]
            later = [random.randint(2, self.high) for _ in range(2)]
            signs = [random.choice("+-") for _ in later]
            told = ["?" if random.random() < self.vague else sign for sign in signs]
            if _decided(start, later, signs, told):
                break
        who, what = random.choice(_NAMES), random.choice(_THINGS)
        opening = f"{who} has {factors[0]} boxes of {factors[1]} {what}" if factors else f"{who} has {start[0]} {what}"
        happened = FIRST[told[0]].format(n=later[0]) + SECOND[told[1]].format(n=later[1])
        result = _result(start, later, signs)
        # Names and things do not make another problem: the numbers and what is told of them do.
        key = f"small-program {start} {later} {told} {result}"
        info = {"start": start, "later": later, "signs": signs, "told": told}
        return Problem(key=key, prompt=f"{opening}{happened}. how many now? ends in {result % 10}", answer=str(result), info=info)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        """The right program, or one with a slip that goes unnoticed, and its output."""
        program = self._wrong_program(task, random) if random.random() < slips else self.program(task)
        return [self._marked(program)], run_program(program)

    def program(self, task: Task) -> str:
        """The right program."""
        return written_program(task.info["start"], task.info["later"], task.info["signs"])

    def demonstration(self, task: Task, seed: int) -> str | None:
        """The program where it is all; else None: a single text cannot show a conversation. Use `conversation`."""
        return None if self.verifying else self.work(task, Random(f"{task.id}/demonstration/{seed}"), self.slips)[0][0]

    def conversation(self, task: Task, seed: int) -> list[Message]:
        if not self.verifying:
            return [*task.messages, Message("assistant", self.demonstration(task, seed) or "")]
        random = Random(f"{task.id}/conversation/{seed}")
        wrong = 0
        while wrong < self.rounds - 1 and random.random() < (self.wrong_again if wrong else self.wrong_first):
            wrong += 1
        programs: list[str] = []
        while len(programs) < wrong:
            program = self._wrong_program(task, random)
            if not self.check(task, program)[1] and program not in programs:
                programs.append(program)
        last = self.language.program_in(self.work(task, random, self.slips)[0][0]) or ""
        programs.append(last if last not in programs else self.program(task))
        messages, said = list(task.messages), ""
        for program in programs:
            messages += [Message("assistant", said + self._marked(program)), Message("tool", run_program(program))]
            said = f"{self.check(task, program)[0]}\n"
        answer = messages[-1].content
        if random.random() < self.slips and answer.lstrip("-").isdigit():
            answer = str(wrong_number(int(answer), random))
        return [*messages, Message("assistant", f"{said}answer: {answer}")]

    def check(self, task: Task, program: str) -> tuple[str, bool]:
        """What a careful reader says of a program and its output, in two lines, and whether nothing is wrong with it."""
        used, output, wanted = numbers_of(program), run_program(program), (task.answer or "0")[-1]
        same, fits = used == [*task.info["start"], *task.info["later"]], output.isdigit() and output[-1] == wanted
        digits = f"{output[-1]}-{wanted}={int(output[-1]) - int(wanted)}" if output.isdigit() else f"{'-' if output.startswith('-') else '?'} {wanted}"
        return f"{' '.join(map(str, used))} {_word(same)}\n{digits} {_word(fits)}", same and fits

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        return judge_rounds(trajectory, self.language, self.rounds, super().verify_trajectory, self.answer_in)

    def environment(self) -> Environment:
        return ProgramEnvironment(self.language, self.rounds, self.verifying)

    def _wrong_program(self, task: Task, random: Random) -> str:
        """A program as somebody might write it who takes the story another way: mostly what might be either is taken for the other, else the operation of one statement
        is wrong, or a number."""
        told = task.info["told"]
        start, later, signs = (list(task.info[part]) for part in ("start", "later", "signs"))
        vague = [i for i, sign in enumerate(told) if sign == "?"]
        if vague and random.random() < 0.75:
            for place in random.sample(vague, random.randint(1, len(vague))):
                signs[place] = _other(signs[place])
        elif random.random() < 0.5:
            place = random.randrange(2)
            signs[place] = _other(signs[place])
        else:
            numbers = random.choice((start, later))
            place = random.randrange(len(numbers))
            numbers[place] = random.choice([n for n in (*start, *later, numbers[place] + 1, numbers[place] + 10) if n != numbers[place]])
        return written_program(start, later, signs)

    def _marked(self, program: str) -> str:
        return f"{self.language.opening}{program}{self.language.closing}"


def written_program(start: list[int], later: list[int], signs: list[str]) -> str:
    """A statement an operation: '[12] [5, 8] -+' -> 'a=12-5;b=a+8;out b'."""
    left, names, statements = str(start[0]), iter("abc"), list[str]()
    for symbol, right in [*[("*", n) for n in start[1:]], *zip(signs, later, strict=True)]:
        name = next(names)
        statements.append(f"{name}={left}{symbol}{right}")
        left = name
    return ";".join([*statements, f"out {left}"])


def _result(start: list[int], later: list[int], signs: list[str]) -> int:
    value = start[0] * (start[1] if len(start) > 1 else 1)
    for symbol, number in zip(signs, later, strict=True):
        value = exact(value, symbol, number)
    return value


def _decided(start: list[int], later: list[int], signs: list[str], told: list[str]) -> bool:
    """Whether nothing falls below 0 on the way, and no other reading of what is told ends in the same digit."""
    first = _result(start, later[:1], signs[:1])
    result = _result(start, later, signs)
    if first < 0 or result < 0:
        return False
    readings = [[sign, _other(sign)] if said == "?" else [sign] for sign, said in zip(signs, told, strict=True)]
    others = [_result(start, later, [a, b]) for a in readings[0] for b in readings[1] if [a, b] != signs]
    return all(value < 0 or value % 10 != result % 10 for value in others)


def _other(sign: str) -> str:
    return "-" if sign == "+" else "+"


def _word(fine: bool) -> str:
    return "ok" if fine else "no"
