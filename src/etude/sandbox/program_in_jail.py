"""What starts a program inside the jail and passes its lines on. It is sent there as text. Standard library only: nothing of Étude is visible there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

ASIDE = "/tmp/aside.txt"
"""What the program prints to standard error."""
KEPT = 4000
"""Bytes of its end that are shown."""
state: dict[str, Any] = {}


class Plain(str):
    """A text that stands for itself where its value is shown."""

    def __repr__(self) -> str:
        return str(self)


def begin(files: dict[str, str], arguments: list[str], longest: int) -> str:
    """Lay a program out, start it, and wait for its first line."""
    for path, text in files.items():
        place = os.path.join("/tmp/program", path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    os.chdir("/tmp/program")
    # Without the packages of the environment: a program has the standard library and its own files.
    command = [sys.executable, "-S", "-B", *arguments]
    with open(ASIDE, "wb") as aside:
        state["process"] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=aside, encoding="utf-8", errors="replace")
    state["longest"] = longest
    return next_line()


def exchange(line: str) -> str:
    """Give the program a line, and wait for its next one."""
    try:
        state["process"].stdin.write(line + "\n")
        state["process"].stdin.flush()
    except OSError:
        # It has ended; what it wrote before is still to be read.
        pass
    return next_line()


def next_line() -> str:
    process = state["process"]
    line = process.stdout.readline(state["longest"] + 1)
    if len(line) > state["longest"]:
        process.kill()
        with open(ASIDE, "a") as aside:
            print(f"a line has more than {state['longest']} characters", file=aside)
        line = ""
    if line:
        return Plain(json.dumps({"line": line.rstrip("\n")}))
    process.stdout.close()
    code = process.wait()
    with open(ASIDE, "rb") as file:
        file.seek(max(0, os.path.getsize(ASIDE) - KEPT))
        aside = file.read().decode("utf-8", "replace")
    return Plain(json.dumps({"code": code, "aside": aside}))
