from __future__ import annotations

import sys

import pytest

from etude.errors import InputError
from etude.tasks.user_code import finite_number, load_object


def test_loads_a_name_from_a_file_that_is_not_on_the_path(tmp_path, monkeypatch):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "mine.py").write_text("def score(task, text):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_object("rewards/mine.py:score", "--reward")(None, "") == 1
    assert sys.path == before


def test_a_module_beside_the_file_can_be_imported(tmp_path):
    (tmp_path / "beside_for_test.py").write_text("VALUE = 7\n")
    (tmp_path / "mine.py").write_text("import beside_for_test\n\ndef score(task, text):\n    return beside_for_test.VALUE\n")
    assert load_object(f"{tmp_path}/mine.py:score", "--reward")(None, "") == 7


def test_a_module_beside_the_file_cannot_stand_in_for_an_installed_one(tmp_path):
    (tmp_path / "wave.py").write_text("raise RuntimeError('the wrong wave')\n")
    (tmp_path / "mine.py").write_text("import wave\n\nopener = wave.open\n")
    assert callable(load_object(f"{tmp_path}/mine.py:opener", "--reward"))


def test_an_edited_file_is_loaded_again_and_an_unchanged_one_is_shared(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def score(task, text):\n    return 1\n")
    first = load_object(f"{path}:score", "--reward")
    assert load_object(f"{path}:score", "--env") is first
    path.write_text("def score(task, text):\n    return 2\n")
    assert load_object(f"{path}:score", "--reward")(None, "") == 2


@pytest.mark.parametrize("spec", ["my_reward.py", "my_reward:score", "my_reward.py:", "my_reward.py:a b", "score", ""])
def test_a_malformed_spec_is_refused(spec):
    with pytest.raises(InputError, match=r"expected file\.py:name"):
        load_object(spec, "--reward")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"no file {tmp_path}/absent\.py"):
        load_object(f"{tmp_path}/absent.py:score", "--reward")


def test_a_missing_name_is_answered_with_what_there_is(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from json import dumps\n\ndef scores(task, text):\n    return 1\n")
    with pytest.raises(InputError, match=r"nothing called 'score'\. Did you mean scores\? It defines: scores\.$"):
        load_object(f"{path}:score", "--reward")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ndef score(:\n", r"SyntaxError.*mine\.py, line 2"),
        ("x = 1\n\ny = 1 / 0\n", r"ZeroDivisionError: division by zero \(mine\.py, line 3"),
        ("import a_package_that_is_not_there\n", r"ModuleNotFoundError.*a_package_that_is_not_there"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(mine\.py, line 2"),
    ],
)
def test_code_that_does_not_run_is_told_with_its_line(tmp_path, code, message):
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(InputError, match=message):
        load_object(f"{path}:score", "--reward")
    assert not [name for name in sys.modules if name.startswith("etude_user_") and getattr(sys.modules[name], "__file__", None) == str(path)]


def test_finite_numbers():
    import numpy as np
    import torch

    assert [finite_number(v) for v in (True, 2, 0.5, np.float32(0.25), np.bool_(True), torch.tensor(3.0))] == [1.0, 2.0, 0.5, 0.25, 1.0, 3.0]
    assert [finite_number(v) for v in (None, "1", float("nan"), float("inf"), [1], np.array([1.0]), 1j)] == [None] * 7
