"""Tasks of any kind with Python at hand: `--env python`.

The model may write `<python>print(6 * 7)</python>` in a turn; the turn ends there, the code is run in the sandbox, and what it gives is the next message. The first turn
without a call is the answer, which the tasks' own verifier or reward judges. Nothing a tool wrote is trained on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from etude.errors import InputError
from etude.sandbox import Limits, Result, Sandbox, open_sandbox
from etude.tasks.around import Around, in_single_turns
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.tasks.options import settings_in
from etude.types import Message, Task, Trajectory

OPEN, CLOSE = "<python>", "</python>"
INSTRUCTION = (
    f"You can run Python: write {OPEN}, the code and {CLOSE}, and stop. What it prints, and the value of its last line, is in the next message. "
    "Each call starts afresh. When you know the answer, write it without a call."
)
OPTIONS = {
    "backend": "safe or jail",
    "turns": "turns of an episode",
    "instruct": "whether the prompt says how to call",
    "preload": "modules that the jail imports first, joined by +",
    "workers": "interpreters at once",
    **{field.name: "a limit of the sandbox" for field in fields(Limits)},
}
NO_CODE = Result("error", error=f"SyntaxError: the call holds no code; expected {OPEN}code{CLOSE}")
_FENCE = re.compile(r"\s*```(?:python|py)?[^\S\n]*\n(.*?)\n?```\s*", re.DOTALL)


def called_code(text: str, opening: str = OPEN, closing: str = CLOSE) -> str | None:
    """The code of the first call in a turn, None without one. The closing mark may be missing: it ends the turn. A fence around the code is taken off."""
    _, opened, rest = text.partition(opening)
    if not opened:
        return None
    code = rest.partition(closing)[0]
    fenced = _FENCE.fullmatch(code)
    return fenced[1] if fenced else code.strip("\n")


class PythonTool(Around):
    """A task set of single turns, in which the model may call Python before it answers."""

    def __init__(
        self,
        tasks: TaskSet,
        *,
        backend: str = "safe",
        turns: int = 8,
        instruct: bool = True,
        preload: str = "",
        workers: int = 0,
        **limits: Any,
    ) -> None:
        """What is not named here are limits of the sandbox. Raises InputError for wrong options, tasks that have an environment, and a back end that cannot be had."""
        super().__init__(in_single_turns(tasks, "--env python gives a tool to tasks of single turns"))
        if turns < 2:
            raise InputError(f"turns is {turns}; expected at least 2, one for a call and one for the answer")
        self._instruct = instruct
        self._sandbox = open_sandbox(backend, limits=Limits(**{"output": 2000, **limits}), workers=workers, preload=tuple(filter(None, preload.split("+"))))
        self.max_turns = turns
        self.stop = (CLOSE, *tasks.stop)
        # The answer is judged as if it were all that was written.
        self.environment_weights = tasks.reward_weights

    @classmethod
    def named(cls, spec: str, tasks: TaskSet) -> PythonTool:
        """From `python` or `python:option=value,option=value`."""
        try:
            return cls(tasks, **settings_in(spec.partition(":")[2], f"--env {spec}", OPTIONS))
        except TypeError as error:
            raise InputError(f"--env {spec} can't be made: {error}; expected numbers for limits, for example --env python:seconds=2,turns=4") from error

    def train_task(self, seed: int, index: int) -> Task:
        return self._told(self.tasks.train_task(seed, index))

    def held_out(self) -> Sequence[Task]:
        return [self._told(task) for task in self.tasks.held_out()]

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        alone = {name: value for name, value in trajectory.tags.items() if not name.startswith("environment_")}
        return self.tasks.verify_trajectory(replace(trajectory, tags=alone))

    def environment(self) -> Environment:
        return PythonEnvironment(self._sandbox)

    def _told(self, task: Task) -> Task:
        """The task with the instruction before its first message by the user."""
        if not self._instruct:
            return task
        messages = list(task.messages)
        place = next((i for i, m in enumerate(messages) if m.role == "user"), 0)
        messages[place] = Message(messages[place].role, f"{INSTRUCTION}\n\n{messages[place].content}")
        return replace(task, messages=tuple(messages))


class PythonEnvironment(Environment):
    """Answers calls; the first turn without one ends the episode."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def reset(self, task: Task) -> Sequence[Message]:
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        code = called_code(text)
        if code is None:
            return EnvironmentStep(done=True)
        result = self._sandbox.run([code])[0] if code.strip() else NO_CODE
        return EnvironmentStep((Message("tool", result.text),), info={"tool_calls": 1, "tool_errors": int(not result.ok), "tool_status": result.status})

    def snapshot(self) -> None:
        """Nothing: no call leaves anything behind."""

    def restore(self, state: None) -> None:
        """Nothing to return to."""
