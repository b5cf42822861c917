"""Actors of one kind, numbered. One that is lost is replaced by a fresh one, and whoever asked it asks again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError, WorkerLost, first_line

IN_A_ROW = 3
"""Losses of one worker without an answer in between, after which it is not replaced again."""


@dataclass(frozen=True)
class Asked:
    """Something that a worker was asked, and which actor that was."""

    actor: Any
    ref: Any


class Gone(Exception):
    """The worker that was asked has died. What it was asked has no answer."""

    def __init__(self, why: str, actor: Any) -> None:
        super().__init__(why)
        self.actor = actor


class Crew:
    """`count` actors of a plain class, whose method `ready` is called first, with what `opening` gives, and answers when the worker can be asked.

    what: how messages name one. Raises whatever `ready` raises.
    """

    def __init__(self, ray: Any, worker: type, count: int, what: str, *, cpus: int, gpus: float, opening: Callable[[], tuple[Any, ...]]) -> None:
        self._ray, self._what, self._opening = ray, what, opening
        # Ray would start one anew by itself, without what it has to be told.
        self._class = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(worker)
        self._lost_in_a_row = [0] * count
        self._closed = False
        self._actors = [self._class.remote() for _ in range(count)]
        self.facts: list[Any] = []
        """What each worker's `ready` answered."""
        for number, asked in enumerate([self.ask(number, "ready", *opening()) for number in range(count)]):
            try:
                self.facts.append(self._get(asked))
            except Gone as error:
                self.facts.append(None)
                self.replace(number, error)

    def __len__(self) -> int:
        return len(self._actors)

    def ask(self, number: int, method: str, *arguments: Any) -> Asked:
        """Ask a worker for something; returns what `answer` takes. Workers do what they are asked in order."""
        actor = self._actors[number]
        return Asked(actor, getattr(actor, method).remote(*arguments))

    def answer(self, number: int, asked: Asked) -> Any:
        """What a worker answers. Raises what it raised, and Gone when it died."""
        answer = self._get(asked)
        self._lost_in_a_row[number] = 0
        return answer

    def settle(self, asked: Mapping[int, Asked]) -> tuple[dict[int, Any], dict[int, Gone]]:
        """The answers of several workers, and those who have none because they died."""
        answers: dict[int, Any] = {}
        gone: dict[int, Gone] = {}
        for number, question in asked.items():
            try:
                answers[number] = self.answer(number, question)
            except Gone as error:
                gone[number] = error
        return answers, gone

    def replace(self, number: int, why: Gone, unfinished: str = "") -> None:
        """Start a fresh worker in the place of one that is gone, with a warning; nothing where somebody has done so already.

        Raises WorkerLost where it has happened several times in a row.
        """
        while why.actor is self._actors[number]:
            if self._closed:
                raise WorkerLost(f"the run has ended, and {self._what} {number} with it")
            self._lost_in_a_row[number] += 1
            if self._lost_in_a_row[number] > IN_A_ROW:
                raise WorkerLost(
                    f"{self._what} {number} was lost {self._lost_in_a_row[number]} times in a row: {why}; where memory ran out, use fewer or smaller ones"
                )
            warnings.warn(f"{self._what} {number} is lost ({why}); another one takes its place{unfinished}", stacklevel=2)
            self._discard(number)
            self._actors[number] = self._class.remote()
            try:
                self.facts[number] = self._get(self.ask(number, "ready", *self._opening()))
            except Gone as error:
                why = error

    def close(self) -> None:
        """End all of them at once."""
        self._closed = True
        for number in range(len(self._actors)):
            self._discard(number)

    def _discard(self, number: int) -> None:
        if self._ray.is_initialized():
            self._ray.kill(self._actors[number], no_restart=True)

    def _get(self, asked: Asked) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(asked.ref)
        except exceptions.RayTaskError as error:
            # What the worker raised, without Ray's account of where.
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except (exceptions.RayActorError, exceptions.ObjectLostError, exceptions.WorkerCrashedError) as error:
            raise Gone(_reason(error), asked.actor) from None
        except exceptions.RaySystemError as error:
            raise InputError(
                f"a {self._what} can't read what it is sent ({first_line(error)}); expected the same packages, and the code of models and tasks, on each machine"
            ) from error


def _reason(error: BaseException) -> str:
    """Ray's reason in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "exit type" in line or "died" in line.lower()), first_line(error))
    return told[:160]
