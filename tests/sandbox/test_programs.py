"""Programs in the jail that are talked to line by line: what they say and how they end, whatever they do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sandbox.test_jail import needs_bwrap

from etude.sandbox import Result
from etude.sandbox.jail import JailSandbox
from etude.sandbox.programs import LONGEST_LINE, JailedProgram, program_limits, read

ECHO = """
import os, socket, sys
import other
print(other.GREETING, flush=True)
for line in sys.stdin:
    match line.strip():
        case "crash": raise ValueError("on purpose")
        case "hang":
            while True: pass
        case "much": print("x" * 300_000, flush=True)
        case "bye": break
        case "look":
            try: socket.create_connection(("127.0.0.1", 80), 1)
            except OSError as error: print(type(error).__name__, sorted(os.environ), os.path.exists("/proc/self"), flush=True)
        case said: print(said * 2, flush=True)
"""
FILES = {"main.py": ECHO, "other.py": "GREETING = 'héllo'\n"}


@pytest.fixture(scope="module")
def jail() -> Iterator[JailSandbox]:
    with JailSandbox(program_limits(seconds=1.0), workers=1) as made:
        yield made


@needs_bwrap
def test_lines_go_both_ways_until_the_program_ends(jail: JailSandbox) -> None:
    with JailedProgram(jail, FILES, ("main.py",)) as program:
        assert program.receive() == "héllo"
        program.send("a'\\n\"")
        assert program.receive() == "a'\\n\"" * 2
        program.send("look")
        told = str(program.receive())
        assert told.startswith("PermissionError")
        assert "False" in told
        assert "API" not in told
        program.send("bye")
        assert program.receive() is None
        assert program.ended is not None
        assert program.ended.ok
        program.send("more")
        assert program.receive() is None


@needs_bwrap
@pytest.mark.parametrize(("line", "said"), [("crash", "ValueError: on purpose"), ("hang", "more than 1 seconds"), ("much", f"more than {LONGEST_LINE} char")])
def test_a_program_that_does_not_behave_is_ended_and_the_next_one_starts_anew(jail: JailSandbox, line: str, said: str) -> None:
    with JailedProgram(jail, FILES, ("main.py",)) as program:
        program.send(line)
        assert program.receive() is None
        assert program.ended is not None
        assert not program.ended.ok
        assert said in program.ended.error + program.ended.aside
    with JailedProgram(jail, FILES, ("main.py",)) as program:
        assert program.receive() == "héllo"


@pytest.mark.parametrize("value", ["nonsense", "[1]", '{"code": "x"}', '{"code": 0}', "[" * 100_000])
def test_an_answer_that_the_program_forged_ends_it(value: str) -> None:
    line, ended = read(Result("ok", value=value))
    assert line is None
    assert ended is not None
    assert not ended.ok
