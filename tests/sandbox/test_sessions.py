"""Calls of one session share their variables, in either back end."""

from __future__ import annotations

import pytest

from etude.errors import InputError
from etude.sandbox import Limits, open_sandbox


@pytest.mark.parametrize("backend", ["safe", "jail"])
def test_a_session_keeps_its_variables_until_a_limit_ends_it(backend: str) -> None:
    try:
        sandbox = open_sandbox(backend, limits=Limits(seconds=1.0, memory=256 * 2**20), workers=2)
    except InputError as error:
        pytest.skip(str(error))
    with sandbox:
        with sandbox.session() as a, sandbox.session() as b:
            a.run("x = 1")
            b.run("x = 2")
            a.run("def f(): return x + 10")
            assert (a.run("f()").value, b.run("x").value) == ("11", "2")
            assert a.run("1 / 0").status == "error"
            assert a.run("f()").value == "11"
            assert a.run("while True: pass").status == "timeout"
            assert "NameError" in a.run("f()").text
        assert "NameError" in sandbox.run(["x"])[0].text
