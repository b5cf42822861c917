"""`bug-hunt`: a bug that takes three right decisions (which file, what is wrong there, which edit), for trying out searches on decisions whose odds are known.

    bug 17: nightly report is off      open clock.py -> ok      suspect unit -> ok      patch 2 -> the tests still fail

Nothing in the world tells a right decision from a wrong one before the tests have run, so that an agent has nothing but luck, and a search nothing but its judge. How lucky
an agent is, and how good a judge, is up to whoever acts and judges; `etude.search.scripts` has both, with the odds of the world's own numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from etude.errors import InputError
from etude.tasks.base import STEPS_TAKEN, Environment, EnvironmentStep
from etude.tasks.builtin.generated import GeneratedTaskSet, Problem
from etude.types import Message, Task

DECISIONS = {
    "open": ("clock.py", "parser.py", "report.py", "store.py", "units.py"),
    "suspect": ("bound", "default", "order", "unit"),
    "patch": ("1", "2", "3", "4"),
}
"""The three decisions of an episode, in order, with what there is to choose from."""
COSTS = {"open": 2, "suspect": 1, "patch": 2}
"""Environment steps of each: a file is searched for and opened, and a patch is made and tested."""
FAILED, FIXED = "the tests still fail", "the tests pass"
_REPORTS = ("nightly report is off", "times jump at midnight", "totals differ by one", "last entry is missing", "import stops half-way")


class BugHunt(GeneratedTaskSet):
    """Bugs whose file, cause and patch are drawn at random. `info` has the right decisions under `right`, and under `tempting` a wrong one for each."""

    name = "bug-hunt"
    instruction = "Find and mend a bug. Each turn is one action, as the task says."
    max_turns = 3
    max_new_tokens = 12

    def draw(self, random: Random) -> Problem:
        # A number of their own tells bugs apart that need the same decisions.
        number = random.randrange(10**9)
        pairs = [random.sample(options, 2) for options in DECISIONS.values()]
        right, tempting = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        actions = "; ".join(f"{verb} {'|'.join(options)}" for verb, options in DECISIONS.items())
        prompt = f"bug {number}: {random.choice(_REPORTS)}\n{actions}"
        return Problem(key=f"bug-hunt {number}", prompt=prompt, answer=" ".join(right), info={"right": right, "tempting": tempting})

    def work(self, task: Task, random: Random, slips: float) -> tuple[list[str], str]:
        """The right actions, each replaced by the tempting one with probability `slips`."""
        pairs = zip(DECISIONS, task.info["right"], task.info["tempting"], strict=True)
        actions = [f"{verb} {tempting if random.random() < slips else right}" for verb, right, tempting in pairs]
        return actions, task.answer or ""

    def demonstration(self, task: Task, seed: int) -> str | None:
        """None: a single text cannot show an episode. Use `conversation`."""
        return None

    def conversation(self, task: Task, seed: int) -> list[Message]:
        environment = self.environment()
        messages = list(environment.reset(task))
        for action in self.work(task, Random(f"{task.id}/conversation/{seed}"), self.slips)[0]:
            messages += [Message("assistant", action), *environment.step(action).messages]
        return messages

    def environment(self) -> Environment:
        return BugEnvironment()


class BugEnvironment(Environment):
    """An episode: the three decisions in their order. What is no decision, or not its turn, is answered by an error; the patch ends the episode."""

    def __init__(self) -> None:
        self._task: Task | None = None
        self._chosen: list[str] = []

    def reset(self, task: Task) -> Sequence[Message]:
        self._task, self._chosen = task, []
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        assert self._task is not None, "reset comes first"
        verb, _, choice = (text.strip().splitlines() or [""])[-1].strip().partition(" ")
        due = list(DECISIONS)[len(self._chosen)]
        if verb != due or choice not in DECISIONS[due]:
            return EnvironmentStep((Message("user", f"Error: expected {due} {'|'.join(DECISIONS[due])}"),), info={"tool_calls": 1, "tool_errors": 1})
        self._chosen.append(choice)
        info: dict[str, Any] = {STEPS_TAKEN: COSTS[verb], "tool_calls": 1, "tool_errors": 0}
        if len(self._chosen) < len(DECISIONS):
            return EnvironmentStep((Message("user", "ok"),), info=info)
        solved = self._chosen == self._task.info["right"]
        said = FIXED if solved else FAILED
        info |= {"tests_passed": int(solved), "tests_failed": int(not solved), "correct": float(solved)}
        return EnvironmentStep((Message("user", said),), float(solved), done=True, info=info)

    def product(self) -> str:
        return " ".join(self._chosen) if len(self._chosen) == len(DECISIONS) else ""

    def snapshot(self) -> list[str]:
        return list(self._chosen)

    def restore(self, state: Sequence[str]) -> None:
        if len(state) > len(DECISIONS):
            raise InputError(f"a state of bug-hunt has {len(state)} decisions; expected at most {len(DECISIONS)}, as snapshot() gives them")
        self._chosen = list(state)


def decided(actions: Sequence[str]) -> list[str]:
    """The decisions that a list of actions comes to, leaving out what the world refuses."""
    chosen: list[str] = []
    for action in actions:
        verb, _, choice = action.strip().partition(" ")
        if len(chosen) < len(DECISIONS) and verb == (due := list(DECISIONS)[len(chosen)]) and choice in DECISIONS[due]:
            chosen.append(choice)
    return chosen


def right_prefix(task: Task, chosen: Sequence[str]) -> int:
    """How many of the first decisions are right before the first wrong one."""
    right: Sequence[str] = task.info["right"]
    return next((i for i, (own, wanted) in enumerate(zip(chosen, right, strict=False)) if own != wanted), min(len(chosen), len(right)))
