from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("reasoning_gym")

from etude.errors import InputError, MissingExtra
from etude.rewards import check_reward, judge
from etude.tasks import gym as gym_module
from etude.tasks import gym_worker
from etude.tasks.gym import GymTaskSet
from etude.tasks.loading import load_tasks
from etude.types import Segment, Trajectory


@pytest.fixture(scope="module")
def sums() -> GymTaskSet:
    return GymTaskSet("chain_sum", options={"min_terms": 2, "max_terms": 2, "max_digits": 2}, held_out_tasks=50)


def test_questions_and_scores(sums):
    task = sums.train_task(0, 3)
    assert task.prompt.endswith("Give the final answer between <answer> and </answer>.")
    right = sums.verify(task, f"I think <answer>7</answer>, no: <answer>{task.answer}</answer>")
    assert right == {"score": 1.0, "correct": 1.0, "format": 0.0}
    assert sums.verify(task, f"<answer> {task.answer}\n</answer>") == {"score": 1.0, "correct": 1.0, "format": 1.0}
    assert sums.verify(task, f"answer: {task.answer}")["correct"] == 1.0
    assert sums.verify(task, f"<answer>{task.answer}")["correct"] == 1.0
    assert sums.verify(task, str(task.answer)) == {"score": 1.0, "correct": 1.0, "format": 0.0}
    assert sums.verify(task, "<answer></answer>") == {"score": 0.0, "correct": 0.0, "format": 1.0}
    assert sums.verify(task, "")["score"] == 0.0


def test_partial_credit_is_reward_but_not_correct(sums):
    task = sums.train_task(0, 3)
    trajectory = Trajectory(task, [], [Segment([], "policy", f"<answer>it must be {task.answer}</answer>")], "eos")
    judge([trajectory], sums)
    assert 0 < trajectory.reward < 1
    assert trajectory.correct == 0.0


def test_training_is_random_access_and_apart_from_the_held_out_split(sums):
    forwards = [sums.train_task(1, i) for i in range(60)]
    backwards = [sums.train_task(1, i) for i in reversed(range(60))][::-1]
    assert forwards == backwards
    assert [sums.train_task(2, i).prompt for i in range(60)] != [t.prompt for t in forwards]
    assert sums.train_task(1, 10_000) == sums.train_task(1, 10_000)
    held = {t.prompt for t in sums.held_out()}
    assert len(held) == len(sums.held_out()) >= 45
    assert not held & {t.prompt for t in forwards}


def test_a_small_data_set_keeps_most_of_its_questions_for_training():
    tasks = GymTaskSet("chain_sum", options={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}, held_out_tasks=200)
    held = {t.prompt for t in tasks.held_out()}
    trained = {tasks.train_task(0, i).prompt for i in range(400)}
    assert 1 <= len(held) < 45
    assert len(trained) > 3 * len(held)
    assert not held & trained


def test_questions_do_not_depend_on_the_hash_seed_of_the_process():
    code = (
        "from etude.tasks.gym import GymTaskSet\n"
        "tasks = GymTaskSet('ransom_note', 'isomorphic_strings', held_out_tasks=5)\n"
        "print([tasks.train_task(0, i).prompt for i in range(6)])\n"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": h}, capture_output=True, text=True, check=True).stdout for h in "12"
    }
    assert len(outputs) == 1


def test_an_answer_that_keeps_the_scorer_busy_scores_0_and_the_next_one_is_scored(monkeypatch):
    tasks = GymTaskSet("coin_flip", held_out_tasks=20)
    task = tasks.train_task(0, 0)
    monkeypatch.setattr(gym_module, "SCORE_SECONDS", 0.2)
    assert tasks.verify(task, "<answer>1e999999999</answer>")["score"] == 0.0
    monkeypatch.undo()
    assert tasks.verify(task, f"<answer>{task.answer}</answer>")["score"] == 1.0


def test_two_data_sets_in_turn():
    tasks = load_tasks("gym:gcd+leg_counting")
    assert [tasks.train_task(0, i).info["name"] for i in range(4)] == ["gcd", "leg_counting"] * 2
    assert {t.info["name"] for t in tasks.held_out()} == {"gcd", "leg_counting"}
    check_reward(tasks)


def test_options_are_read_from_the_name():
    tasks = load_tasks("gym:basic_arithmetic:min_terms=2,max_terms=2,operators=[+,-],allow_parentheses=false")
    prompts = [tasks.train_task(0, i).info["question"] for i in range(30)]
    assert not any("*" in p or "/" in p or "(" in p for p in prompts)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("gym:chain_sums", r"no data set 'chain_sums'\. Did you mean .*chain_sum.* It has: ab, "),
        ("gym:", "no data set ''"),
        ("gym:composite", "no data set 'composite'"),
        ("gym:chain_sum:min_term=2", r"no option 'min_term'\. Did you mean min_terms"),
        ("gym:chain_sum:min_terms", "'min_terms' is no setting; expected option=value"),
        ("gym:chain_sum:min_terms=9,max_terms=2", "refused its options"),
        ("gym:gcd+lcm:max_terms=2", "options go with a single data set"),
    ],
)
def test_unknown_names_and_options_are_refused(spec, told):
    with pytest.raises(InputError, match=told):
        load_tasks(spec)


def test_the_extra_is_named_where_the_package_is_missing(monkeypatch):
    monkeypatch.setattr(gym_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'etude\[gym\]'"):
        load_tasks("gym:chain_sum")


def test_every_data_set_draws_a_question_and_scores_its_own_answer():
    worker = gym_module._WorkerProcess()
    names = worker.ask("names")
    assert len(names) > 90
    for name in names:
        worker.ask("open", name=name, config={})
        # The highest block checks that seeds stay within what every data set takes.
        for block in (0, gym_module._BLOCKS - 1):
            seed = block * gym_worker.BLOCK
            item = worker.ask("item", name=name, seed=seed, index=1)
            assert item["question"], name
            assert worker.ask("item", name=name, seed=seed, index=1) == item
            if item["answer"] is not None:
                assert worker.ask("score", name=name, seed=seed, index=1, answer=item["answer"]) > 0.99, name
            assert 0 <= worker.ask("score", name=name, seed=seed, index=1, answer="no idea") <= 1


def test_majority_votes_read_the_tag(sums):
    assert sums.answer_in("<answer>5</answer>") == "5"
    assert sums.answer_in("answer: 5") == "5"
    assert sums.answer_in("<answer></answer>") is None
    assert sums.answer_in("no idea") is None
