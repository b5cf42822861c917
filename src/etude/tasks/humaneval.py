"""`humaneval:FILE`: functions to write, judged by their tests in the sandbox. One line of the file is a task in the format of HumanEval (Chen et al., 2021).

    {"task_id", "prompt", "entry_point", "canonical_solution", "test"}

The prompt is the beginning of a module, up to a function's documentation; `test` defines `check(candidate)`, which raises where the function is wrong.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.sandbox.base import Limits, Result
from etude.sandbox.jail import JailSandbox
from etude.tasks.finite import FiniteTasks
from etude.tasks.jsonl import read_objects
from etude.tasks.options import settings_in
from etude.types import Message, Task

INSTRUCTION = "Complete this Python function. Answer with the whole function in one block of code."
FIELDS = ("task_id", "prompt", "entry_point", "test")
OPTIONS = {"seconds": "of one test", "memory": "bytes of one test", "workers": "tests at once", "instruct": "whether the prompt asks for a block of code"}
_FENCE = re.compile(r"```(?:python|py)?[^\S\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_NEXT = re.compile(r"\n(?:class |def |if __name__|print\(|#|@|assert )")
"""Where what follows a bare continuation is no part of the function any more."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is behind a task: its prompt, and what decides."""

    prompt: str
    entry_point: str
    test: str
    solution: str


class HumanEval(FiniteTasks):
    """Single-turn programming tasks.

    `correct` is 1 where `check` runs to its end in the jail. `runs` is 0 for a text whose code could not even be defined: no Python, or an error on import. An answer is a
    fenced block with the whole function, or the continuation of the prompt. Tests and solutions are in no `Task`.
    """

    max_new_tokens = 512
    without_training = "give a file to train on before it: humaneval:TRAIN.jsonl,TEST.jsonl"

    def __init__(
        self, held_out: Path, train: Path | None = None, *, seconds: float = 5.0, memory: int = 1 << 30, workers: int = 0, instruct: bool = True
    ) -> None:
        """Raises InputError for lines that are no tasks, ids that occur twice, and where there can be no jail."""
        self.name, self._instruct = held_out.stem, instruct
        self._problems: dict[str, Problem] = {}
        training, measured = ([self._read(fields, place) for fields, place in read_objects(path)] if path else [] for path in (train, held_out))
        super().__init__(training, measured)
        self._jail = JailSandbox(Limits(seconds=seconds, memory=memory), workers)

    @classmethod
    def parse(cls, spec: str) -> HumanEval:
        """From `FILE`, which is all held out, or `TRAIN,FILE`; either with `:option=value,...`."""
        place, colon, options = spec.rpartition(":")
        if not colon or "=" not in options:
            place, options = spec, ""
        paths = [Path(part.strip()).expanduser() for part in place.split(",")]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing or len(paths) > 2:
            wrong = f"there is no file {missing[0]}" if missing else f"{len(paths)} files are named"
            raise InputError(f"--tasks humaneval:{spec}: {wrong}; expected FILE.jsonl, or TRAIN.jsonl,FILE.jsonl")
        settings = settings_in(options, f"--tasks humaneval:{spec}", OPTIONS, example="seconds=5")
        return cls(paths[-1], paths[0] if len(paths) == 2 else None, **settings)

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        result = self._tried(self._problems[task.id], text)
        return {"correct": float(result == "passed"), "runs": float(result in ("passed", "failed"))}

    def answer_in(self, text: str) -> str | None:
        """None: two programs that do the same have no common spelling to vote for."""
        return None

    def demonstration(self, task: Task, seed: int) -> str | None:
        problem = self._problems[task.id]
        return f"```python\n{problem.prompt}{problem.solution}\n```" if problem.solution else None

    def close(self) -> None:
        """End the jail's processes; they end with this process in any case."""
        self._jail.close()

    def _tried(self, problem: Problem, text: str) -> str:
        """passed, failed, or broken where the function could not be defined."""
        defined, passed = (secrets.token_hex(8) for _ in range(2))
        # The end of the tests is told by a value that the answer cannot know beforehand: leaving early is no way to pass.
        code = f"{program_of(problem, text)}\n\n{problem.test}\n\nprint({defined!r}, flush=True)\ncheck({problem.entry_point})\n{passed!r}"
        result: Result = self._jail.run([code])[0]
        if result.ok and result.value == repr(passed):
            return "passed"
        return "failed" if defined in result.stdout else "broken"

    def _read(self, fields: Mapping[str, Any], place: str) -> Task:
        wrong = [name for name in FIELDS if not isinstance(fields.get(name), str) or not fields[name].strip()]
        if wrong:
            raise InputError(f"{place}: {' and '.join(repr(name) for name in wrong)} missing or no text; expected the fields of HumanEval: {', '.join(FIELDS)}")
        name = fields["task_id"]
        if name in self._problems:
            raise InputError(f"{place}: the task_id {name!r} occurs twice; give every task its own")
        if not fields["entry_point"].isidentifier():
            raise InputError(f"{place}: entry_point is {fields['entry_point']!r}; expected the name of the function that is tested")
        self._problems[name] = Problem(fields["prompt"], fields["entry_point"], fields["test"], str(fields.get("canonical_solution") or ""))
        prompt = f"{INSTRUCTION}\n\n```python\n{fields['prompt'].rstrip()}\n```" if self._instruct else fields["prompt"]
        return Task(name, (Message("user", prompt),))


def program_of(problem: Problem, text: str) -> str:
    """The module that an answer makes: the prompt, then the last fenced block that defines the function, else the last block or the text as the prompt's continuation."""
    blocks: Sequence[str] = _FENCE.findall(text)
    whole = [
        block for block in (*blocks, *([] if blocks else [text])) if re.search(rf"^(?:async )?def {re.escape(problem.entry_point)}\b", block, re.MULTILINE)
    ]
    if whole:
        # The prompt comes first, for its imports and helpers; the answer's own definition replaces the one that it begins.
        return f"{problem.prompt.rstrip()}\n    pass\n\n{whole[-1]}"
    continuation = blocks[-1] if blocks else text
    end = _NEXT.search(continuation)
    return problem.prompt + (continuation[: end.start()] if end else continuation)
