from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.jsonl import JsonlTaskSet
from etude.tasks.loading import load_tasks

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", sorted(builtin_task_sets()))
def test_built_in_families_are_found_by_name(name):
    tasks = load_tasks(name)
    assert tasks.name == name
    assert tasks.train_task(0, 0).prompt


def test_a_family_can_be_made_harder():
    harder = load_tasks("arithmetic:terms=4,high=99,limit=999")
    assert isinstance(harder, Arithmetic)
    assert (harder.name, harder.terms, harder.high, harder.limit) == ("arithmetic", 4, 99, 999)
    assert all(sum(c in "+-*" for c in harder.train_task(0, i).prompt) == 3 for i in range(5))


def test_one_file_two_files_and_a_name_with_a_comma(tmp_path):
    line = '{{"prompt": "{0}", "answer": "1"}}\n'
    (tmp_path / "train.jsonl").write_text(line.format("a") + line.format("b"))
    (tmp_path / "test.jsonl").write_text(line.format("c"))
    (tmp_path / "odd,name.jsonl").write_text(line.format("d") + line.format("e"))
    assert [t.prompt for t in load_tasks(f"{tmp_path}/train.jsonl,{tmp_path}/test.jsonl").held_out()] == ["c"]
    one, odd = load_tasks(f"{tmp_path}/train.jsonl"), load_tasks(f"{tmp_path}/odd,name.jsonl")
    assert isinstance(one, JsonlTaskSet)
    assert isinstance(odd, JsonlTaskSet)
    assert (one.train_size, odd.train_size) == (1, 1)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("aritmetic", r"no task set 'aritmetic'\. Did you mean arithmetic\? Built in: arithmetic, "),
        ("arithmetic:terms", "'terms' is no setting; expected option=value"),
        ("arithmetic:colour=3", "can't be made: .*colour"),
        ("arithmetic:terms=many", "can't be made: "),
        ("arithmetic:terms=1", "terms is 1; expected at least 2"),
        ("zzz", "Built in: .*file.py:Class"),
        ("absent.jsonl", r"no task file absent\.jsonl; relative paths start at "),
        ("a.jsonl,b.jsonl,c.jsonl", "names 3 files"),
        ("absent.py:Tasks", r"no file .*absent\.py"),
    ],
)
def test_unknown_tasks_are_refused(spec, told):
    with pytest.raises(InputError, match=told):
        load_tasks(spec)


def test_files_of_another_kind_and_folders_are_refused(tmp_path):
    (tmp_path / "tasks.csv").write_text("prompt,answer\n")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match=r"is a file, but only files that end in \.jsonl"):
        load_tasks(f"{tmp_path}/tasks.csv")
    with pytest.raises(InputError, match="is a folder, but only"):
        load_tasks(str(tmp_path))
    with pytest.raises(InputError, match="is a folder; expected a JSONL file"):
        load_tasks(f"{tmp_path}/folder.jsonl")


def test_tasks_without_answers_need_a_reward_or_an_environment(tmp_path):
    (tmp_path / "open.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(InputError, match="--reward file"):
        load_tasks(f"{tmp_path}/open.jsonl")
    (tmp_path / "mine.py").write_text(
        "def score(task, text):\n    return len(text)\n\n"
        "class Env:\n    def __init__(self, seed):\n        self.seed = seed\n"
        "    def reset(self, task):\n        return str(self.seed)\n    def step(self, text):\n        return [], 1.0, True\n"
    )
    rewarded = load_tasks(f"{tmp_path}/open.jsonl", reward=f"{tmp_path}/mine.py:score")
    assert rewarded.verify(rewarded.train_task(0, 0), "abc") == {"reward": 3.0, "correct": 1.0}
    both = load_tasks(f"{tmp_path}/open.jsonl", reward=f"{tmp_path}/mine.py:score", env=f"{tmp_path}/mine.py:Env", seed=9)
    environment = both.environment()
    assert environment is not None
    assert environment.reset(both.train_task(0, 0))[0].content == "9"


def test_a_reward_goes_with_a_built_in_family(tmp_path):
    (tmp_path / "mine.py").write_text("def score(task, text):\n    return -len(text)\n")
    tasks = load_tasks("arithmetic", reward=f"{tmp_path}/mine.py:score")
    task = tasks.train_task(0, 0)
    assert task == load_tasks("arithmetic").train_task(0, 0)
    assert tasks.verify(task, f"answer: {task.answer}")["correct"] == 1.0
    assert tasks.reward_weights == {"reward": 1.0}


def test_a_task_set_of_the_users_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from etude.tasks.base import TaskSet\nfrom etude.types import Message, Task\n\n"
        "class Mine(TaskSet):\n    name = 'mine'\n"
        "    def train_task(self, seed, index):\n        return Task(str(index), (Message('user', 'x'),))\n"
        "    def held_out(self):\n        return [self.train_task(0, -1)]\n"
        "    def verify(self, task, text):\n        return {'correct': 1.0}\n\n"
        "ready = Mine()\n\nclass Half(TaskSet):\n    pass\n\nnumber = 3\n"
    )
    assert load_tasks(f"{tmp_path}/mine.py:Mine").train_task(0, 4).id == "4"
    assert load_tasks(f"{tmp_path}/mine.py:ready").name == "mine"
    with pytest.raises(InputError, match=r"could not be constructed: TypeError.*abstract"):
        load_tasks(f"{tmp_path}/mine.py:Half")
    with pytest.raises(InputError, match="is no task set"):
        load_tasks(f"{tmp_path}/mine.py:number")


def test_loading_tasks_imports_no_torch():
    code = f"import sys; from etude.tasks.loading import load_tasks; load_tasks({str(EXAMPLES / 'problems.jsonl')!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
