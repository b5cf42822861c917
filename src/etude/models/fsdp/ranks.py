"""Starting the ranks, asking them, and noticing when one is gone."""

from __future__ import annotations

import atexit
import signal
import tempfile
import time
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.multiprocessing as mp

from etude.errors import LearnerLost
from etude.models.fsdp.rank import FAILED, REFUSED, serve

GRACE_SECONDS = 3.0
"""How long to wait for what else is known once one rank is gone: the cause may be noticed after its consequences."""


class Ranks:
    """Processes on this machine, one a rank. device: `cpu`, or `cuda` for one GPU each. They end with this process, however it ends."""

    def __init__(self, count: int, device: str) -> None:
        self.count = count
        threads = max(1, torch.get_num_threads() // count)
        self._folder = tempfile.TemporaryDirectory(prefix="etude-ranks-")
        ends = [mp.get_context("spawn").Pipe() for _ in range(count)]
        self._pipes: list[Connection] = [own for own, _ in ends]
        arguments = ([theirs for _, theirs in ends], str(Path(self._folder.name) / "store"), device, threads)
        context = mp.start_processes(serve, args=arguments, nprocs=count, join=False, daemon=True, start_method="spawn")
        assert context is not None
        self._processes: list[Any] = list(context.processes)
        for _, theirs in ends:
            theirs.close()
        self._end = weakref.finalize(self, _kill, self._processes, self._folder)
        # Before multiprocessing's own, which waits for processes that it has sent a signal they take no notice of.
        atexit.register(self._end)

    @property
    def pids(self) -> list[int]:
        """Process ids, by rank."""
        return [process.pid for process in self._processes]

    def ask(self, command: str, *arguments: Any) -> Any:
        """Have every rank do something (a method of `rank.Rank`); returns the first one's result.

        Raises what they refused, alike, after which they are as they were; LearnerLost when one is gone, and then all are ended.
        """
        try:
            for pipe in self._pipes:
                pipe.send((command, arguments))
            answers = [self._answer(pipe) for pipe in self._pipes]
        except (EOFError, OSError):
            self._lost([])
        if any(kind == FAILED for kind, _ in answers):
            self._lost([text for kind, text in answers if kind == FAILED])
        for kind, error in answers:
            if kind == REFUSED:
                raise error
        return answers[0][1]

    def _answer(self, pipe: Connection) -> tuple[str, Any]:
        if pipe not in wait([pipe, *(process.sentinel for process in self._processes)]):
            raise EOFError
        answer = pipe.recv()
        if answer[0] == FAILED:
            self._lost([answer[1]])
        return answer

    def _lost(self, known: list[str]) -> NoReturn:
        """End the ranks and say why, the cause before its consequences. Raises LearnerLost."""
        self._join()
        known += [answer[1] for answer in self._left() if answer[0] == FAILED]
        killed = [f"rank {i} was ended by {_signal(-p.exitcode)}" for i, p in enumerate(self._processes) if p.exitcode is not None and p.exitcode < 0]
        ended = [f"rank {i} ended with code {p.exitcode}" for i, p in enumerate(self._processes) if p.exitcode]
        self.close()
        memory = [text for text in known if "memory" in text]
        why = next(iter([*memory, *killed, *known, *ended]), "a rank ended without a word")
        if not known and not killed:
            why += '; a script that trains has to do so under `if __name__ == "__main__":`, because ranks begin by importing it'
        raise LearnerLost(f"the sharded learner is gone: {why}")

    def _left(self) -> list[tuple[str, Any]]:
        """Answers that nobody has read yet."""
        answers = []
        for pipe in self._pipes:
            with suppress(EOFError, OSError):
                while pipe.poll(0):
                    answers.append(pipe.recv())
        return answers

    def close(self) -> None:
        """Let the ranks end; those that do not are ended."""
        for pipe in self._pipes:
            pipe.close()
        self._join()
        atexit.unregister(self._end)
        self._end()

    def _join(self) -> None:
        """Wait for the ranks to end, for a while."""
        until = time.monotonic() + GRACE_SECONDS
        for process in self._processes:
            process.join(max(0.0, until - time.monotonic()))


def _kill(processes: list[Any], folder: tempfile.TemporaryDirectory[str]) -> None:
    for process in processes:
        if process.exitcode is None:
            process.kill()
    for process in processes:
        process.join()
    folder.cleanup()


def _signal(number: int) -> str:
    name = signal.Signals(number).name
    return f"{name}; the system does this when memory runs out" if name == "SIGKILL" else name
