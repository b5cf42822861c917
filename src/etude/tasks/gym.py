"""Every reasoning-gym data set as a task set (extra `gym`): generated questions, scored by the data set's own scorer."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.errors import EtudeError, InputError, MissingExtra, nearest
from etude.tasks import gym_worker
from etude.tasks.answers import final_answer
from etude.tasks.base import TaskSet
from etude.tasks.options import settings_in
from etude.types import Message, Task

INSTRUCTION = "Give the final answer between <answer> and </answer>."
HELD_OUT_TASKS = 200
SCORE_SECONDS = 5.0
"""Time that scoring one answer may take; past it the answer scores 0."""
DRAW_SECONDS = 120.0
"""Time that anything else may take, such as drawing a question."""
# A block of consecutive item seeds is one data set object. The lower half of its items are drawn first, the upper half replace those that cannot be used.
_DRAWN = gym_worker.BLOCK // 2
_HELD_OUT_BLOCKS = 8
# Some data sets hand their seeds to NumPy, which takes 32 bits.
_BLOCKS = 2**32 // gym_worker.BLOCK - 1
_ATTEMPTS = 64

_ANSWER = re.compile(r"<answer>\s*(.*?)\s*(?:</answer>|$)", re.DOTALL)


class GymTaskSet(TaskSet):
    """One reasoning-gym data set, or several in turn.

    `score` is the data set's own score in [0, 1], with its partial credit; it is the reward. `correct` is 1 for a full score, else 0. `format` is 1 when
    exactly one `<answer>...</answer>` was written. What stands in the last one is scored; without one, the final answer by the usual markers, or else the
    whole text.

    Training tasks and the held-out split are drawn from different seeds, and a question that is held out never comes up in training, whatever its seed. Where
    questions repeat among the first draws, the data set is small, and a fixed fifth of the different ones is held out.
    """

    reward_weights: Mapping[str, float] = {"score": 1.0}
    max_new_tokens = 128

    def __init__(self, *names: str, options: Mapping[str, Any] | None = None, held_out_tasks: int = HELD_OUT_TASKS) -> None:
        """Raises InputError for unknown data sets or options, MissingExtra without the package."""
        if importlib.util.find_spec("reasoning_gym") is None:
            raise MissingExtra("reasoning-gym", "gym", f"the task set gym:{'+'.join(names)}")
        self.name = f"gym:{'+'.join(names)}"
        self._names = names
        self._worker = _WorkerProcess()
        self._held_out_tasks = held_out_tasks
        self._held_out: list[Task] | None = None
        self._held_out_questions: set[str] = set()
        known = self._worker.ask("names")
        for name in names:
            if name not in known:
                raise InputError(f"reasoning-gym has no data set {name!r}.{nearest(name, known)} It has: {', '.join(known)}")
            self._open(name, dict(options or {}))

    @classmethod
    def parse(cls, spec: str) -> GymTaskSet:
        """From `NAME`, `NAME:option=value,option=value` or `NAME+NAME`, which takes the data sets in turn."""
        names, _, settings = spec.partition(":")
        options = settings_in(settings, f"gym:{spec}", example="gym:chain_sum:min_terms=2,max_terms=3")
        if "+" in names and options:
            raise InputError(f"gym:{spec}: options go with a single data set; expected gym:NAME:option=value or gym:NAME+NAME")
        return cls(*(name.strip() for name in names.split("+")), options=options)

    def train_task(self, seed: int, index: int) -> Task:
        self.held_out()
        chunk, place = divmod(index, _DRAWN)
        digest = hashlib.blake2b(f"{seed}/{chunk}".encode(), digest_size=8).digest()
        block = _HELD_OUT_BLOCKS + int.from_bytes(digest, "little") % (_BLOCKS - _HELD_OUT_BLOCKS)
        name = self._names[index % len(self._names)]
        for attempt in range(_ATTEMPTS):
            item = place if attempt == 0 else _DRAWN + (place + 37 * attempt) % _DRAWN
            task = self._task(name, block, item)
            if task is not None and task.info["question"] not in self._held_out_questions:
                return task
        raise InputError(f"{self.name}: no training question was found that is not held out; the data set has too few different questions with these options")

    def held_out(self) -> Sequence[Task]:
        if self._held_out is None:
            different: dict[str, Task] = {}
            for draw in range(self._held_out_tasks):
                task = self._task(self._names[draw % len(self._names)], draw // _DRAWN, draw % _DRAWN)
                if task is not None:
                    different.setdefault(task.info["question"], task)
            if len(different) < 2:
                raise InputError(f"{self.name} has {len(different)} different questions with these options; expected at least 2, to hold one out")
            if len(different) < 0.9 * self._held_out_tasks:
                fixed = sorted(different, key=lambda question: hashlib.blake2b(question.encode(), digest_size=8).digest())
                different = {question: different[question] for question in fixed[: max(1, len(different) // 5)]}
            self._held_out = list(different.values())
            self._held_out_questions = set(different)
        return self._held_out

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        place = {name: task.info[name] for name in ("name", "seed", "index")}
        score = self._worker.ask("score", otherwise=0.0, answer=self.answer_in(text) or text.strip(), **place)
        stated = text.count("<answer>") == 1 and text.count("</answer>") == 1 and text.index("<answer>") < text.index("</answer>")
        return {"score": score, "correct": float(score > 1 - 1e-6), "format": float(stated)}

    def answer_in(self, text: str) -> str | None:
        tagged = _ANSWER.findall(text)
        return tagged[-1] or None if tagged else final_answer(text)

    def demonstration(self, task: Task, seed: int) -> str | None:
        """The reference answer in the asked form, without work; None for data sets whose scorer alone knows."""
        return None if task.answer is None else f"<answer>{task.answer}</answer>"

    def _open(self, name: str, options: dict[str, Any]) -> None:
        known = self._worker.ask("options", name=name)
        for option in options:
            if option not in known:
                raise InputError(f"the reasoning-gym data set {name} has no option {option!r}.{nearest(option, known)} It has: {', '.join(known)}")
        try:
            self._worker.ask("open", name=name, config=options)
        except _RequestFailed as error:
            raise InputError(f"the reasoning-gym data set {name} refused its options {options}: {error}") from error

    def _task(self, name: str, block: int, index: int) -> Task | None:
        """Item `index` of a block of seeds, or None where the data set cannot draw it."""
        seed = block * gym_worker.BLOCK
        try:
            item = self._worker.ask("item", name=name, seed=seed, index=index)
        except _RequestFailed:
            return None
        if item is None:
            return None
        question = item["question"]
        return Task(
            id=f"{name}-{seed + index}",
            messages=(Message("user", f"{question}\n{INSTRUCTION}"),),
            answer=item["answer"],
            info={"name": name, "seed": seed, "index": index, "question": question},
        )


class _RequestFailed(EtudeError):
    """The worker could not do what was asked."""


class _WorkerProcess:
    """A running `gym_worker`, started again when it ends in the middle of a request."""

    def __init__(self) -> None:
        self._opened: dict[str, dict[str, Any]] = {}
        self._process: subprocess.Popen[str] | None = None

    def ask(self, do: str, *, otherwise: Any = None, **arguments: Any) -> Any:
        """The answer to one request; `otherwise` when it ran out of time. Raises _RequestFailed with the worker's own message."""
        answer = self._exchange(do, arguments)
        if answer is None:
            return otherwise
        if "error" in answer:
            raise _RequestFailed(answer["error"])
        if do == "open":
            self._opened[arguments["name"]] = arguments["config"]
        return answer["value"]

    def _exchange(self, do: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        process = self._running()
        assert process.stdin is not None, "opened with a pipe"
        assert process.stdout is not None, "opened with a pipe"
        try:
            seconds = SCORE_SECONDS if do == "score" else DRAW_SECONDS
            process.stdin.write(json.dumps({"do": do, "with": arguments, "seconds": seconds}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        status = process.wait()
        self._process = None
        if status >= 0:
            raise EtudeError(f"the reasoning-gym process ended with status {status}; its messages are above")
        return None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            # -P: the worker's own folder must not come before installed packages. The fixed hash seed makes questions the same in every process.
            command = [sys.executable, "-P", str(Path(gym_worker.__file__))]
            environment = {**os.environ, "PYTHONHASHSEED": "0"}
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
            self._process = process
            weakref.finalize(self, _end, process)
            for name, config in self._opened.items():
                self._exchange("open", {"name": name, "config": config})
        return self._process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
