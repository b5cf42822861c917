"""The safe interpreter behind the sandbox's interface."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from etude.errors import InputError
from etude.sandbox import Limits, Result, Sandbox, open_sandbox

LIMITS = Limits(seconds=1.0, memory=64 * 2**20, output=2000)


@pytest.fixture(scope="module")
def safe() -> Iterator[Sandbox]:
    with open_sandbox("safe", limits=LIMITS, workers=2) as sandbox:
        yield sandbox


def one(sandbox: Sandbox, code: str) -> Result:
    return sandbox.run([code])[0]


def test_what_ran_gives_output_and_the_value_of_a_last_expression(safe: Sandbox) -> None:
    result = one(safe, "print('a')\nx = 20\nx * 2 + 2")
    assert (result.status, result.stdout, result.value, result.error, result.text) == ("ok", "a\n", "42", None, "a\n42")
    assert one(safe, "x = 1").text == "(no output)"


@pytest.mark.parametrize(
    ("code", "status", "shown"),
    [
        ("while True: pass", "timeout", "TimeoutError: the code ran for more than 1 seconds"),
        ("try:\n    while True: pass\nexcept BaseException:\n    pass", "timeout", "TimeoutError"),
        ("x = [0] * 10 ** 9", "memory", "MemoryError: the code used more than 64 MiB"),
        ("x = 'a'\nwhile True: x += x", "memory", "MemoryError"),
        ("9 ** 9 ** 9", "memory", "MemoryError"),
        ("print('y' * 10 ** 6)", "output-limit", "OutputLimit: the code printed more than 2000 characters"),
        ("try:\n    print('y' * 10 ** 6)\nexcept Exception:\n    pass", "output-limit", "OutputLimit"),
        ("def f(): return f()\nf()", "error", "RecursionError"),
        ("def (", "error", "SyntaxError"),
        ("10 ** 10000", "error", "ValueError: Exceeds the limit"),
        ("raise ValueError('no')", "error", "ValueError: no"),
        ("raise TimeoutError('mine')", "error", "TimeoutError: mine"),
        ("def f():\n    yield 1", "unsupported", "NotImplementedError"),
        ("import fractions", "unsupported", "No module named 'fractions'"),
        ("import nothing_of_that_name", "error", "No module named 'nothing_of_that_name'"),
        ("open('/etc/passwd').read()", "error", "PermissionError: there are no files, and no system, in this interpreter"),
        ("open('/tmp/x', 'w')", "error", "PermissionError"),
        ("import os\nos.environ", "error", "PermissionError"),
        ("import os\nos.getenv('HOME')", "error", "PermissionError"),
        ("import os\nos.listdir('/')", "error", "PermissionError"),
        ("import socket", "unsupported", "No module named 'socket'"),
        ("import subprocess", "unsupported", "No module named 'subprocess'"),
        ("().__class__.__base__.__subclasses__()", "error", "AttributeError"),
    ],
)
def test_limits_and_mistakes_end_a_call_and_the_model_is_told_which(safe: Sandbox, code: str, status: str, shown: str) -> None:
    result = one(safe, code)
    assert (result.status, shown in result.text) == (status, True), result
    assert len(result.text) < 2.2 * LIMITS.output + 200
    assert one(safe, "1 + 1").value == "2"


def test_tracebacks_look_like_cpythons(safe: Sandbox) -> None:
    assert one(safe, "def f():\n    return 1 / 0\nf()").error == (
        'Traceback (most recent call last):\n  File "<tool>", line 3, in <module>\n    f()\n  File "<tool>", line 2, in f\n    return 1 / 0\n'
        "ZeroDivisionError: division by zero"
    )
    deep = one(safe, "def f(): return f()\nf()").error or ""
    assert deep.splitlines()[1:6] == [
        '  File "<tool>", line 2, in <module>',
        "    f()",
        '  File "<tool>", line 1, in f',
        "    def f(): return f()",
        f"  [Previous line repeated {LIMITS.recursion - 1} more times]",
    ]


def test_a_crash_of_the_interpreter_costs_one_call(safe: Sandbox) -> None:
    with safe.session() as session:
        assert session.run("x = 1").ok
        worker = threading.Timer(0.2, _kill_workers)
        worker.start()
        result = session.run("while True: pass")
        worker.join()
        assert (result.status, result.text) == ("killed", "the process was killed before the code had ended")
        assert "NameError" in session.run("x").text
    assert one(safe, "3").value == "3"


def _kill_workers() -> None:
    """Kill the interpreters that this process started."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    program, _, rest = file.read().partition("(")[2].rpartition(")")
            except OSError:
                continue
            if program == "monty" and int(rest.split()[1]) == os.getpid():
                os.kill(int(name), 9)


def test_results_come_in_the_order_of_the_calls_and_know_nothing_of_each_other(safe: Sandbox) -> None:
    codes = [f"x = {i}\nfor _ in range({1000 * (i % 3)}): pass\nx" for i in range(30)]
    assert [r.value for r in safe.run(codes)] == [str(i) for i in range(30)]
    assert "NameError" in one(safe, "x").text


def test_the_same_call_gives_the_same_result(safe: Sandbox) -> None:
    code = "import random, time\nfrom datetime import datetime\ntime.sleep(1000)\nrandom.random(), datetime.now()"
    first = one(safe, code)
    assert first.ok
    assert {r.value for r in safe.run([code] * 4)} == {first.value}


def test_without_the_package_it_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    with pytest.raises(InputError, match=r"pip install 'etude\[sandbox\]'"):
        open_sandbox("safe")


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="limit seconds is 0"):
        Limits(seconds=0)
    with pytest.raises(InputError, match="no sandbox 'docker'; expected one of safe, jail"):
        open_sandbox("docker")
    with pytest.raises(InputError, match="preload is numpy"):
        open_sandbox("safe", preload=("numpy",))
