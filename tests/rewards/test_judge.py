from __future__ import annotations

import math

import pytest

from etude.errors import InputError
from etude.rewards import judge, total
from etude.tasks.base import TaskSet
from etude.tasks.builtin import builtin_task_sets
from etude.types import Message, Segment, Task, Trajectory

TASK = Task("t", (Message("user", "2+3="),), answer="5")


class Weighted(TaskSet):
    name = "weighted"
    reward_weights = {"correct": 1.0, "format": 0.25, "style": 0.0}  # noqa: RUF012

    def __init__(self, components):
        self.components = components

    def train_task(self, seed, index):
        return TASK

    def held_out(self):
        return [TASK]

    def verify(self, task, text):
        return self.components


def attempt(*turns: tuple[str, str], **tags: float) -> Trajectory:
    return Trajectory(TASK, [], [Segment([], author, text) for author, text in turns], "eos", tags=dict(tags))


def test_components_are_kept_and_weighed():
    trajectory = attempt(("policy", "5"))
    judge([trajectory], Weighted({"correct": 1.0, "format": 0.5, "length": 40.0}))
    assert trajectory.rewards == {"correct": 1.0, "format": 0.5, "length": 40.0}
    assert (trajectory.reward, trajectory.correct) == (1.125, 1.0)


def test_what_could_not_be_judged_is_unscorable():
    needed, unneeded = attempt(("policy", "5")), attempt(("policy", "5"))
    judge([needed], Weighted({"correct": math.nan, "format": 1.0}))
    judge([unneeded], Weighted({"correct": 1.0, "format": 1.0, "style": math.nan}))
    assert math.isnan(needed.reward)
    assert unneeded.reward == 1.25


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_judgement_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"weighted judged an attempt at task 't' with format = -?inf; expected a finite number, or NaN"):
        judge([attempt(("policy", "5"))], Weighted({"correct": 1.0, "format": value}))
    with pytest.raises(InputError, match=r"task 't' with environment = -?inf"):
        judge([attempt(("policy", "5"), environment_reward=value)], Weighted({"correct": 1.0}))


def test_a_missing_component_is_an_error_unless_it_has_no_weight():
    with pytest.raises(InputError, match="needs the component 'format', but the verifier gave correct"):
        judge([attempt(("policy", "5"))], Weighted({"correct": 1.0}))
    assert total({"a": 2.0}, {"a": 0.5, "b": 0.0}) == 1.0
    assert total({}, {}) == 0.0


def test_the_last_turn_is_verified():
    family = builtin_task_sets()["arithmetic"]()
    task = family.train_task(0, 0)
    trajectory = Trajectory(
        task, [], [Segment([], "policy", "answer: -1"), Segment([], "environment", "again"), Segment([], "policy", f"answer: {task.answer}")], "eos"
    )
    judge([trajectory], family)
    assert (trajectory.correct, trajectory.reward) == (1.0, 1.0)


def test_an_episode_is_worth_what_its_environment_gave():
    tasks = Weighted({"correct": 1.0, "format": 0.5})
    verdict = attempt(("policy", "4"), ("environment", "?"), ("policy", "5"), environment_reward=0.5, environment_correct=0.0)
    silent = attempt(("policy", "5"), environment_reward=1.5)
    unjudged = attempt(("policy", "5"), environment_reward=math.nan)
    judge([verdict, silent, unjudged], tasks)
    assert verdict.rewards == {"format": 0.5, "environment": 0.5, "correct": 0.0}
    assert verdict.reward == 0.5
    assert (silent.reward, silent.correct) == (1.5, 1.0)
    assert math.isnan(unjudged.reward)
    assert math.isnan(unjudged.correct)
