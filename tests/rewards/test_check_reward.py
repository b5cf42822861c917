from __future__ import annotations

from pathlib import Path

import pytest

from etude.errors import InputError
from etude.rewards import check_reward
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.loading import load_tasks

PROBLEMS = str(Path(__file__).parents[2] / "examples" / "problems.jsonl")


@pytest.mark.parametrize("name", sorted(builtin_task_sets()))
def test_built_in_families_pass(name):
    check_reward(load_tasks(name))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return float(text.split()[-1])", r"'problems-\d+': IndexError.*\(mine\.py, line 2"),
        ("return None if text else 0", r"returned None on task 'problems-\d+'"),
        ("return 0.0 if not text else float('nan')", "returned nan"),
    ],
)
def test_a_reward_that_cannot_judge_an_empty_or_a_short_text_is_found(tmp_path, body, told):
    (tmp_path / "mine.py").write_text(f"def score(task, text):\n    {body}\n")
    tasks = load_tasks(PROBLEMS, reward=f"{tmp_path}/mine.py:score")
    with pytest.raises(InputError, match=told):
        check_reward(tasks)


def test_an_environment_is_rehearsed_and_closed(tmp_path):
    (tmp_path / "mine.py").write_text(
        "log = []\n\nclass Env:\n"
        "    def reset(self, task):\n        return task.messages\n"
        "    def step(self, text):\n        log.append(text)\n        return 'again', 0.0, False\n"
        "    def close(self):\n        log.append('closed')\n\n"
        "class Broken(Env):\n    def step(self, text):\n        return 'again', 0.0\n"
        "    def close(self):\n        log.append('closed')\n        raise OSError('while closing')\n"
    )
    check_reward(load_tasks(PROBLEMS, env=f"{tmp_path}/mine.py:Env"))
    from etude.tasks.user_code import load_object

    log = load_object(f"{tmp_path}/mine.py:log", "--env")
    assert log == ["", "closed", "answer: 1", "closed"]
    with pytest.raises(InputError, match=r"step\(text\) is \('again', 0.0\) \(tuple\) on task 'problems-\d+'"):
        check_reward(load_tasks(PROBLEMS, env=f"{tmp_path}/mine.py:Broken"))
    assert log[4:] == ["closed"]
