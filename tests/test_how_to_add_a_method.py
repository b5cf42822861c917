"""docs/how-to-add-a-method.md, followed to the letter: its package is built, installed, listed and trained with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to-add-a-method.md"
SMALL = ["--steps", "1", "--tasks-per-step", "2", "--group-size", "4", "--max-new-tokens", "4", "--eval-tasks", "2", "--eval-samples", "2", "--threads", "1"]


def block(after: str, text: str) -> str:
    """The first code block after some words of the page."""
    found = re.search(r"^```\w+\n(.*?)^```", text[text.index(after) :], re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the page's package is installed in, with its test beside."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    text = PAGE.read_text()
    (source / "blame.py").write_text(block("`blame.py`:", text))
    (source / "pyproject.toml").write_text(block("`pyproject.toml`:", text))
    (target / "test_blame.py").write_text(block("(`test_blame.py`)", text))
    build = [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('.')"]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(source.glob("*.whl"))) as wheel:
        wheel.extractall(target)
    return target


def run(installed: Path, *arguments: str) -> str:
    """What python says where the package is installed."""
    path = os.pathsep.join([str(installed), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=installed, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_method_is_listed_and_trains(installed: Path) -> None:
    listed = run(installed, "-m", "etude", "list", "--family", "mine")
    assert "GRPO in which a failure weighs less than a success" in listed
    train = ["-m", "etude", "train", "less-blame", "--blame", "0.5", "--quiet", "--out", "run", *SMALL]
    assert "Less blame" in run(installed, *train)
    assert "blame: 0.5" in (installed / "run" / "config.yaml").read_text()
    assert (installed / "run" / "model" / "config.json").is_file()


def test_its_test_passes_and_python_finds_it_once_imported(installed: Path) -> None:
    code = (
        "import blame, etude, test_blame\n"
        "test_blame.test_failures_weigh_less()\n"
        "from importlib.metadata import entry_points\n"
        "assert [e.value for e in entry_points(group='etude.methods', name='less-blame')] == ['blame']\n"
        "print(etude.get_method('less-blame') is blame.LessBlame, etude.build_config('less-blame', blame=0.5).method.blame)\n"
    )
    assert run(installed, "-c", code) == "True 0.5\n"
