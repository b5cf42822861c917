from __future__ import annotations

import pytest

from etude.errors import InputError
from etude.rewards import judge
from etude.tasks.jsonl import JsonlTaskSet, has_answer
from etude.tasks.user_reward import RewardedTaskSet, RewardFunction
from etude.types import Message, Segment, Task, Trajectory

TASK = Task("sum-1", (Message("user", "2+3="),), answer="5")


def attempt(text: str, task: Task = TASK) -> Trajectory:
    return Trajectory(task, [], [Segment([], "policy", text)], "eos")


def load(tmp_path, code: str, name: str = "score") -> RewardFunction:
    (tmp_path / "mine.py").write_text(code)
    return RewardFunction.load(f"{tmp_path}/mine.py:{name}")


@pytest.mark.parametrize(
    ("returned", "components"),
    [
        ("len(text)", {"reward": 3.0}),
        ("text == 'abc'", {"reward": 1.0}),
        ("{'a': 1, 'b': 0.5}", {"a": 1.0, "b": 0.5, "reward": 1.5}),
        ("{'a': 1, 'reward': 0.25}", {"a": 1.0, "reward": 0.25}),
        ("__import__('numpy').float32(0.5)", {"reward": 0.5}),
    ],
)
def test_numbers_and_named_numbers(tmp_path, returned, components):
    assert load(tmp_path, f"def score(task, text):\n    return {returned}\n")(attempt("abc")) == components


def test_a_declared_trajectory_is_passed(tmp_path):
    reward = load(tmp_path, "def score(task, text, *, trajectory):\n    return len(trajectory.segments)\n")
    assert reward(attempt("abc")) == {"reward": 1.0}


def test_callable_instances_are_accepted(tmp_path):
    code = "class Length:\n    def __call__(self, task, text):\n        return len(text)\n\nscore = Length()\n"
    assert load(tmp_path, code)(attempt("abcd")) == {"reward": 4.0}


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("None", "returned None"),
        ("float('nan')", r"returned nan \(float\)"),
        ("float('-inf')", r"returned -inf \(float\)"),
        ("'0.5'", r"returned '0.5' \(str\)"),
        ("[1.0]", r"returned \[1.0\] \(list\)"),
        ("{}", r"returned \{\} \(dict\)"),
        ("{'a': None}", "returned None for 'a'"),
    ],
)
def test_what_is_no_number_names_the_task(tmp_path, returned, told):
    reward = load(tmp_path, f"def score(task, text):\n    return {returned}\n")
    with pytest.raises(InputError, match=rf"mine\.py:score \(defined in line 1\) {told} on task 'sum-1'; expected a finite number"):
        reward(attempt("abc"))


def test_an_error_names_the_task_and_the_line(tmp_path):
    reward = load(tmp_path, "def last(text):\n    return text.split()[-1]\n\ndef score(task, text):\n    return float(last(text))\n")
    with pytest.raises(InputError, match=r"on task 'sum-1': IndexError: list index out of range \(mine\.py, line 2, in last\)"):
        reward(attempt(""))


def test_an_error_inside_a_library_is_told_by_the_users_own_line(tmp_path):
    reward = load(tmp_path, "import json\n\ndef score(task, text):\n    return json.loads(text)\n")
    with pytest.raises(InputError, match=r"JSONDecodeError.*\(mine\.py, line 4, in score\)"):
        reward(attempt("{"))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("score = 3\n", "expected a function score"),
        ("def score(text):\n    return 1\n", r"takes \(text\), which cannot be called with \(task, text\)"),
        ("def score(task, text, style):\n    return 1\n", "missing a required argument: 'style'"),
        ("def score():\n    return 1\n", "too many positional arguments"),
        ("class score:\n    def __init__(self, a, b):\n        pass\n", "is a class"),
        ("async def score(task, text):\n    return 1\n", "async"),
    ],
)
def test_what_cannot_be_called_is_refused_when_loaded(tmp_path, code, told):
    with pytest.raises(InputError, match=told):
        load(tmp_path, code)


@pytest.fixture
def tasks(tmp_path) -> JsonlTaskSet:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "2+3=", "answer": "5"}\n{"prompt": "say something nice"}\n{"prompt": "1+1=", "answer": 2}\n')
    return JsonlTaskSet(path, needs_answers=False)


def test_the_reward_is_the_functions_and_correct_the_tasks_own(tmp_path, tasks):
    rewarded = RewardedTaskSet(tasks, load(tmp_path, "def score(task, text):\n    return {'brief': 0.5, 'polite': 1.5}\n"), has_verdict=has_answer)
    right, wrong = attempt("answer: 5"), attempt("answer: 6")
    judge([right, wrong], rewarded)
    assert (right.reward, wrong.reward) == (2.0, 2.0)
    assert right.rewards == {"correct": 1.0, "brief": 0.5, "polite": 1.5, "reward": 2.0}
    assert wrong.correct == 0.0


def test_without_an_answer_correct_is_the_reward_within_0_and_1(tmp_path, tasks):
    rewarded = RewardedTaskSet(tasks, load(tmp_path, "def score(task, text):\n    return float(text)\n"), has_verdict=has_answer)
    open_ended = Task("open", (Message("user", "say something nice"),))
    for text, correct in (("0.25", 0.25), ("7", 1.0), ("-3", 0.0)):
        trajectory = attempt(text, open_ended)
        judge([trajectory], rewarded)
        assert (trajectory.reward, trajectory.correct) == (float(text), correct)


def test_a_component_called_correct_wins(tmp_path, tasks):
    rewarded = RewardedTaskSet(tasks, load(tmp_path, "def score(task, text):\n    return {'correct': 0.5}\n"), has_verdict=has_answer)
    trajectory = attempt("answer: 5")
    judge([trajectory], rewarded)
    assert (trajectory.correct, trajectory.reward) == (0.5, 0.5)
    assert rewarded.verify(TASK, "answer: 5")["correct"] == 0.5
