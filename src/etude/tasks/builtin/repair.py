"""`repair`: a program with one wrong token, examples of what it should put out, and a few actions to mend it. The software world in a language that `tiny` can write.

    fix a=x+3;b=a+2;out b        a=x*3  -> ok     run -> 14 29
    x=4: 14                      a=x+3  -> ok     b=a*2 -> ok
    x=9: 24                      run    -> 14 24  submit

A statement written anew takes the place of the one with the same name, if exactly one of its tokens is another. `run` gives the outputs for the examples; other inputs, which
nobody sees, decide. `tiny` was not taught the task: imitate first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Unpack

from etude.errors import InputError
from etude.tasks.base import EPISODE_TAGS, Environment, EnvironmentStep
from etude.tasks.builtin.generated import FamilyOptions, GeneratedTaskSet, Problem
from etude.tasks.small_language import FAILED, run_program
from etude.types import Message, Task, Trajectory

OK, CANNOT = "ok", FAILED
INPUTS = range(2, 10)
"""What x is tried with, in examples and hidden tests."""
AGAIN = 0.5
"""Of the lessons with a wrong edit, the share that goes on to another one."""
COUNTED = ("turns", "edits", "test_runs", "invalid_actions", "empty_patch")
"""What is told of an episode, as tags and as components without weight."""
_TOKEN = re.compile(r"out|\d+|[a-z]|[-+*=]")


class Repair(GeneratedTaskSet):
    """Programs of two or three statements over an input x, one token of which is wrong.

    statements: most statements of a program. shown: examples in the prompt. turns: actions of an episode. wrong_first: share of the lessons that begin with a wrong edit,
    which running shows and which is taken back. slips: how often a lesson ends with a wrong edit that nobody ran.
    Of all programs one token away from the given one, those that fit the examples put out the same for every input, so that there is one right behaviour to find.
    """

    name = "repair"
    instruction = (
        "One token of this program is wrong. Each turn is one action: a statement written anew with one token changed, such as 'b=a*2', 'run' to see the outputs for the "
        "examples, or 'submit' when they are right."
    )

    def __init__(self, *, statements: int = 3, shown: int = 2, turns: int = 8, wrong_first: float = 0.5, **options: Unpack[FamilyOptions]) -> None:
        super().__init__(**options)
        if not 2 <= statements <= 4 or not 1 <= shown <= 4:
            raise InputError(f"statements is {statements}, shown {shown}; expected 2 to 4 and 1 to 4")
        if turns < 3 or not 0 <= wrong_first <= 1:
            raise InputError(f"turns is {turns}, wrong_first {wrong_first:g}; expected at least 3, and a share in [0, 1]")
        self.statements, self.shown, self.wrong_first = statements, shown, wrong_first
        self.max_turns = turns
        self.max_new_tokens = 12

    def draw(self, random: Random) -> Problem:
        while True:
            right = _drawn_program(random, random.randint(2, self.statements))
            program = random.choice(list(edits(right)))
            inputs = random.sample(INPUTS, len(INPUTS))
            examples = sorted(inputs[: self.shown])
            if not _right_on(program, right, examples) and _decided(program, right, examples):
                break
        told = "\n".join(f"x={x}: {output(right, x)}" for x in examples)
        info = {"program": program, "right": right, "examples": examples}
        return Problem(key=f"repair {program} {right}", prompt=f"fix {program}\n{told}", answer=right, info=info)

    def judge(self, task: Task, answer: str) -> bool:
        """Whether a program puts out what the right one does, for every input."""
        return _right_on(answer, task.info["right"], INPUTS)

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        """The actions of an expert, and the program that is handed in."""
        world = World(task)
        wanted = _changed_statement(task.info["program"], task.info["right"])
        actions: list[str] = []

        def act(*some: str) -> None:
            for action in some:
                world.act(action)
                actions.append(action)

        wrong = 0
        while len(actions) + 6 <= self.max_turns and random.random() < (AGAIN if wrong else self.wrong_first):
            wrong += 1
            tried = self._wrong_edit(world, random)
            act(tried, "run", world.statement_like(tried))
        if random.random() < slips:
            act(self._wrong_edit(world, random), "submit")
        else:
            act(wanted, "run", "submit")
        return actions, world.program

    def demonstration(self, task: Task, seed: int) -> str | None:
        """None: a single text cannot show an episode. Use `conversation`."""
        return None

    def conversation(self, task: Task, seed: int) -> list[Message]:
        environment = self.environment()
        messages = list(environment.reset(task))
        for action in self.work(task, Random(f"{task.id}/conversation/{seed}"), self.slips)[0]:
            messages += [Message("assistant", action), *environment.step(action).messages]
        return messages

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        """What was counted of an episode; the environment has judged it."""
        return {name: float(value) for name, value in trajectory.tags.items() if name in COUNTED}

    def environment(self) -> Environment:
        return RepairEnvironment(self)

    def _wrong_edit(self, world: World, random: Random) -> str:
        """A statement that changes what is put out, and does not mend it."""
        wrong = [program for program in edits(world.program) if not _right_on(program, world.right, world.examples)]
        return _changed_statement(world.program, random.choice(wrong))


class World:
    """The program as it stands, and what each action does."""

    def __init__(self, task: Task) -> None:
        self.program: str = task.info["program"]
        self.right: str = task.info["right"]
        self.examples: Sequence[int] = task.info["examples"]

    def act(self, text: str) -> str:
        """Carry out an action, the last line of a text, and say what comes of it."""
        action = (text.strip().splitlines() or [""])[-1].strip()
        if action == "run":
            return " ".join(output(self.program, x) for x in self.examples)
        old = self.statement_like(action)
        changed = self.program.replace(old, action) if old else ""
        if not old or _distance(old, action) != 1 or output(changed, INPUTS[0]) == FAILED:
            return CANNOT
        self.program = changed
        return OK

    def statement_like(self, statement: str) -> str:
        """The program's statement that begins with the same name as another one; empty where there is none."""
        name = next(iter(tokens(statement)), "")
        return next((own for own in self.program.split(";") if tokens(own)[0] == name), "")


class RepairEnvironment(Environment):
    """A program that is being mended. The reward comes with `submit` or after the last turn: 1 where it is right for every input."""

    def __init__(self, tasks: Repair) -> None:
        self._tasks = tasks
        self._task: Task | None = None
        self._world: World | None = None
        self._counts = {"turns": 0, "edits": 0, "test_runs": 0, "invalid_actions": 0}

    def reset(self, task: Task) -> Sequence[Message]:
        self._task, self._world = task, World(task)
        self._counts = dict.fromkeys(self._counts, 0)
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        world, counts = self._world, self._counts
        assert world is not None, "step before reset"
        assert self._task is not None, "step before reset"
        submitted = text.strip() == "submit"
        said = "" if submitted else world.act(text)
        counts["turns"] += 1
        if not submitted:
            counts["edits" if said == OK else "invalid_actions" if said == CANNOT else "test_runs"] += 1
        tags = {**counts, "empty_patch": world.program == self._task.info["program"]}
        info: dict[str, Any] = {"tool_calls": 1, "tool_errors": int(said == CANNOT), EPISODE_TAGS: tags}
        if not submitted and said not in (OK, CANNOT):
            passed = sum(put_out == output(world.right, x) for put_out, x in zip(said.split(" "), world.examples, strict=True))
            info |= {"tests_passed": passed, "tests_failed": len(world.examples) - passed}
        if not submitted and counts["turns"] < self._tasks.max_turns:
            return EnvironmentStep((Message("tool", said),), info=info)
        solved = float(self._tasks.judge(self._task, world.program))
        return EnvironmentStep(reward=solved, done=True, info={**info, "correct": solved})

    def product(self) -> str:
        assert self._world is not None, "product before reset"
        assert self._task is not None, "product before reset"
        return "" if self._world.program == self._task.info["program"] else self._world.program

    def snapshot(self) -> dict[str, Any]:
        assert self._world is not None, "snapshot before reset"
        return {"program": self._world.program, "counts": dict(self._counts)}

    def restore(self, state: dict[str, Any]) -> None:
        assert self._world is not None, "restore before reset"
        self._world.program, self._counts = state["program"], dict(state["counts"])


def tokens(text: str) -> list[str]:
    """'b=a*12' -> ['b', '=', 'a', '*', '12']."""
    return _TOKEN.findall(text)


def output(program: str, x: int) -> str:
    """What a program puts out for an input."""
    return run_program(f"x={x};{program}")


def edits(program: str) -> Iterator[str]:
    """Programs that differ from one in one token: another operation, another digit or name as an operand. Each runs."""
    statements = program.split(";")
    for place, statement in enumerate(statements):
        parts = tokens(statement)
        known = ["x", *(tokens(earlier)[0] for earlier in statements[:place])]
        for i, part in enumerate(parts):
            if i == 0 or part == "=":
                continue
            others = "+-*" if part in "+-*" else [*known, *"123456789"]
            for other in others:
                if other != part:
                    yield ";".join([*statements[:place], _written([*parts[:i], other, *parts[i + 1 :]]), *statements[place + 1 :]])


def _written(parts: Sequence[str]) -> str:
    return f"out {parts[1]}" if parts[0] == "out" else "".join(parts)


def _distance(old: str, new: str) -> int:
    """Tokens in which two statements differ; a large number where one is longer, or the new one is written otherwise."""
    one, other = tokens(old), tokens(new)
    if len(one) != len(other) or _written(other) != new:
        return 99
    return sum(a != b for a, b in zip(one, other, strict=True))


def _changed_statement(program: str, changed: str) -> str:
    """The statement of a changed program that is another one than before."""
    return next(new for old, new in zip(program.split(";"), changed.split(";"), strict=True) if old != new)


def _drawn_program(random: Random, count: int) -> str:
    """A program in which each statement goes on from the one before."""
    statements, last = list[str](), "x"
    for name in "abcd"[:count]:
        operands = [last, random.choice(["x", *"123456789"] if statements else "123456789")]
        random.shuffle(operands)
        statements.append(f"{name}={operands[0]}{random.choice('+-*')}{operands[1]}")
        last = name
    return ";".join([*statements, f"out {last}"])


def _right_on(program: str, right: str, inputs: Sequence[int]) -> bool:
    return all(output(program, x) == output(right, x) for x in inputs)


def _decided(program: str, right: str, examples: Sequence[int]) -> bool:
    """Whether every program one token away from `program` that fits the examples is right for all inputs."""
    return all(_right_on(other, right, INPUTS) for other in edits(program) if _right_on(other, right, examples))
