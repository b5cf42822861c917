"""The files in `examples/` and the sentences about them in its README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from etude.rewards import check_reward, judge
from etude.tasks.jsonl import JsonlTaskSet
from etude.tasks.loading import load_tasks
from etude.types import Segment, Trajectory

EXAMPLES = Path(__file__).parents[1] / "examples"
PROBLEMS = str(EXAMPLES / "problems.jsonl")
REWARD = f"{EXAMPLES}/my_reward.py:score"
ENVIRONMENT = f"{EXAMPLES}/my_env.py:SecondTry"


def attempt(task, text: str) -> Trajectory:
    return Trajectory(task, [], [Segment([], "policy", text)], "eos")


def test_the_problems_are_right():
    tasks = load_tasks(PROBLEMS)
    assert isinstance(tasks, JsonlTaskSet)
    everything = [*tasks.held_out(), *(tasks.train_task(0, i) for i in range(tasks.train_size))]
    assert (len(everything), len(tasks.held_out())) == (300, 60)
    for task in everything:
        a, b, sign, c = re.fullmatch(r"compute (\d)\*(\d)([+-])(\d+)", task.prompt).groups()
        assert int(task.answer) == int(a) * int(b) + (1 if sign == "+" else -1) * int(c)


def test_an_attempt_is_compared_with_the_reference_answer():
    tasks = load_tasks(PROBLEMS)
    check_reward(tasks)
    task = tasks.train_task(0, 0)
    right, wrong = attempt(task, f"answer: {task.answer}"), attempt(task, "answer: -1")
    judge([right, wrong], tasks)
    assert (right.reward, wrong.reward) == (1.0, 0.0)


def test_the_reward_pays_for_the_answer_and_the_work():
    tasks = load_tasks(PROBLEMS, reward=REWARD)
    check_reward(tasks)
    task = tasks.train_task(0, 0)
    worked, bare, wrong = attempt(task, f"1+1=2\nanswer: {task.answer}"), attempt(task, f"answer: {task.answer}"), attempt(task, "1+1=2\nanswer: -1")
    judge([worked, bare, wrong], tasks)
    assert [t.reward for t in (worked, bare, wrong)] == pytest.approx([1.1, 1.0, 0.1])
    assert [t.correct for t in (worked, bare, wrong)] == [1.0, 1.0, 0.0]
    assert worked.rewards == pytest.approx({"right": 1.0, "work": 0.1, "reward": 1.1, "correct": 1.0})


def test_the_environment_gives_a_second_try_for_half_the_reward():
    tasks = load_tasks(PROBLEMS, env=ENVIRONMENT)
    check_reward(tasks)
    assert tasks.max_turns == 2
    task = tasks.train_task(0, 0)
    for texts, rewards, correct in (
        ([f"answer: {task.answer}"], [1.0], 1.0),
        (["answer: -1", f"answer: {task.answer}"], [0.0, 0.5], 1.0),
        (["answer: -1", "answer: -1"], [0.0, 0.0], 0.0),
    ):
        environment = tasks.environment()
        assert environment is not None
        assert environment.reset(task) == task.messages
        steps = [environment.step(text) for text in texts]
        environment.close()
        assert [s.reward for s in steps] == rewards
        assert [s.done for s in steps] == [False] * (len(texts) - 1) + [True]
        assert steps[-1].info == {"correct": correct}
        assert all(s.messages[0].content == "check and fix" for s in steps[:-1])


def test_both_together_add_up():
    tasks = load_tasks(PROBLEMS, reward=REWARD, env=ENVIRONMENT)
    check_reward(tasks)
    task = tasks.train_task(0, 0)
    trajectory = attempt(task, f"1+1=2\nanswer: {task.answer}")
    trajectory.tags |= {"environment_reward": 0.5, "environment_correct": 1.0}
    judge([trajectory], tasks)
    assert trajectory.reward == pytest.approx(1.6)
    assert trajectory.correct == 1.0


def test_the_readme_names_what_is_there():
    text = (EXAMPLES / "README.md").read_text()
    for path in re.findall(r"examples/(\w+\.\w+)", text):
        assert (EXAMPLES / path).is_file(), path
    assert "examples/my_reward.py:score" in text
    assert "examples/my_env.py:SecondTry" in text
