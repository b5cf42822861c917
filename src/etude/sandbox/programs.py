"""A program in the jail that is talked to line by line: it is untrusted, and all that it can do is write a line and wait for the answer.

The program is a folder of Python with a file to start. It runs as a process of its own inside one session of the jail: a line that it writes to standard output comes to the
host, and the line that the host sends back is on its standard input. What it prints to standard error is kept aside. It has no network, no file of this machine, and
the limits of the jail; `seconds` is what it may take between two lines, so that waiting for the host costs it nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.sandbox.base import Limits, Result
from etude.sandbox.jail import JailSandbox

DRIVER = Path(__file__).with_name("program_in_jail.py").read_text()
LONGEST_LINE = 200_000
"""Characters of a line, either way. A program that writes a longer one is ended."""
MOST_CODE = 2_000_000
"""Characters of a program's files together, as they are sent."""


def program_limits(seconds: float = 10.0, memory: int = 512 << 20) -> Limits:
    """Limits of a jail for programs. seconds: between two lines. memory: bytes."""
    # Escaped, a character of a line may become six.
    return Limits(seconds=seconds, memory=memory, output=8 * LONGEST_LINE, code=MOST_CODE, processor=30 * seconds)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended. ok: by itself, with exit code 0. error: why not. aside: the end of what it printed to standard error."""

    ok: bool
    error: str = ""
    aside: str = ""


class JailedProgram:
    """One run of a program. `receive` and `send` by turns, until `ended` says how it ended; use it as a context.

    files: texts by path. arguments: of the command line, the first being the file that is started.
    """

    def __init__(self, sandbox: JailSandbox, files: Mapping[str, str], arguments: Sequence[str]) -> None:
        self._session = sandbox.session()
        self._line: str | None = None
        self.ended: Ended | None = None
        self.seconds = 0.0
        """What the program itself took so far."""
        self._take(f"{DRIVER}\n\nbegin({dict(files)!r}, {list(arguments)!r}, {LONGEST_LINE})")

    def receive(self) -> str | None:
        """The line that the program has written, and None when it has ended."""
        return self._line

    def send(self, line: str) -> None:
        """Answer, and wait for the next line. A program that has ended hears nothing."""
        if self.ended is None:
            self._take(f"exchange({line!r})")

    def close(self) -> None:
        """End the program, whatever it does."""
        self._session.close()

    def __enter__(self) -> JailedProgram:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _take(self, code: str) -> None:
        result = self._session.run(code)
        self.seconds += result.seconds
        self._line, self.ended = read(result)


def read(result: Result) -> tuple[str | None, Ended | None]:
    """The program's next line, or how it ended. Only texts and a number are taken from what came out of the jail: the program may have written it."""
    if not result.ok or result.value is None:
        return None, Ended(False, result.error or "it gave no answer")
    try:
        said = json.loads(result.value)
        if "line" in said:
            return str(said["line"]), None
        code, aside = int(said["code"]), str(said["aside"])
        return None, Ended(code == 0, "" if code == 0 else f"it ended with exit code {code}", aside)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, Ended(False, "it spoiled the channel to the host")
