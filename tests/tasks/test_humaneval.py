"""Functions to write, judged in the jail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox.test_jail import needs_bwrap

from etude.errors import InputError
from etude.tasks.humaneval import HumanEval, Problem, program_of
from etude.tasks.loading import load_tasks

PROMPT = 'from typing import List\n\n\ndef one() -> int:\n    return 1\n\n\ndef add(a: List[int]) -> int:\n    """Sum.\n    >>> add([1, 2])\n    3\n    """\n'
ROW = {
    "task_id": "T/0",
    "prompt": PROMPT,
    "entry_point": "add",
    "canonical_solution": "    return sum(a)\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
}


def written(folder: Path, *rows: dict, name: str = "h.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HumanEval]:
    made = load_tasks(f"humaneval:{written(tmp_path_factory.mktemp('humaneval'), ROW)}:seconds=1,workers=1")
    assert isinstance(made, HumanEval)
    yield made
    made.close()


@needs_bwrap
@pytest.mark.parametrize(
    ("text", "correct", "runs"),
    [
        ("    return sum(a)\n", 1, 1),
        ("    return sum(a) + one() - 1\n\nprint(3)\ndef broken(", 1, 1),
        ("Sure:\n```python\ndef add(a: List[int]):\n    return sum(a)\n```\nIt adds.", 1, 1),
        ("def add(a): return sum(a)", 1, 1),
        ("    return len(a)", 0, 1),
        ("    while True: pass", 0, 1),
        ("    import sys; sys.exit(0)", 0, 1),
        ("```\nimport os\ndef add(a): return sum(a)\nos._exit(0)\n```", 0, 0),
        ("I do not know", 0, 0),
    ],
)
def test_an_answer_counts_where_the_tests_run_to_their_end(tasks: HumanEval, text: str, correct: int, runs: int) -> None:
    assert tasks.verify(tasks.held_out()[0], text) == {"correct": correct, "runs": runs}


@needs_bwrap
def test_what_decides_is_in_no_task_and_the_solution_passes(tasks: HumanEval) -> None:
    (task,) = tasks.held_out()
    assert "assert" not in repr(task)
    assert "sum(a)" not in repr(task)
    assert tasks.verify(task, tasks.demonstration(task, 0) or "")["correct"] == 1.0
    with pytest.raises(InputError, match=r"humaneval:TRAIN\.jsonl,TEST\.jsonl"):
        tasks.train_task(0, 0)


def test_the_last_block_that_defines_the_function_is_the_answer() -> None:
    problem = Problem("def f(x):\n    'Same.'\n", "f", "", "")
    assert program_of(problem, "```python\ndef f(x): return 1\n```\nor\n```python\ndef f(x): return x\n```\n```\nf(2)\n```").endswith(
        "pass\n\ndef f(x): return x\n"
    )
    assert program_of(problem, "    return x\nclass A: pass") == "def f(x):\n    'Same.'\n    return x"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{**ROW, "test": ""}], "line 1: 'test' missing or no text"),
        ([ROW, ROW], "line 2: the task_id 'T/0' occurs twice"),
        ([{**ROW, "entry_point": "f(); g"}], "expected the name of the function"),
    ],
)
def test_files_that_are_no_tasks_are_refused(tmp_path: Path, rows: list[dict], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)")):
        load_tasks(f"humaneval:{written(tmp_path, *rows)}")
    with pytest.raises(InputError, match="there is no file"):
        load_tasks("humaneval:absent.jsonl")
