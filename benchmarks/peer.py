"""Another library in its own process and its own Python, kept warm, spoken to in lines of JSON.

Peers pin versions of torch and transformers that Étude does not, so each lives in its own environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


class Peer:
    """The asking side: starts a worker script, sends it its configuration, then asks and waits for answers."""

    def __init__(self, python: str, script: str, config: Mapping[str, Any], *, threads: int, environment: Mapping[str, str] | None = None) -> None:
        path = Path(__file__).parent / script
        variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **(environment or {})}
        # Étude's own path must not leak into the other environment.
        variables.pop("PYTHONPATH", None)
        self.name = script.removesuffix(".py")
        self._process = subprocess.Popen([python, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
        self.description = self.ask(config)

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send one message and wait for its answer. Raises RuntimeError when the worker has died; its own words are on stderr."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}; what it said is above")
        return json.loads(line)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def serve(handle: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """The answering side, for a worker that answers one message after another."""
    answer = own_stdout()
    for message in messages():
        answer(handle(message))


def messages() -> Iterator[dict[str, Any]]:
    """What the asking side sends, until it closes."""
    while line := sys.stdin.readline():
        yield json.loads(line)


def own_stdout() -> Callable[[Mapping[str, Any]], None]:
    """Keep stdout for answers: whatever libraries print goes to stderr from here on. Returns the function that answers."""
    channel: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    return answer
