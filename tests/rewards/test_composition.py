from __future__ import annotations

import math

import pytest

import etude
from etude.errors import InputError
from etude.rewards import check_weights, compose, read_weights
from etude.run import Run
from etude.types import Message, Segment, Task, Trajectory


def attempt(reward: float, **components: float) -> Trajectory:
    return Trajectory(Task("t", (Message("user", "?"),)), [], [Segment([], "policy", "!")], "eos", reward=reward, rewards=components)


def test_a_weight_is_linear_between_steps_and_constant_outside():
    (weight,) = read_weights(["format=10:0.5,50:0.1"])
    assert [weight.at(step) for step in (0, 10, 20, 30, 50, 99)] == pytest.approx([0.5, 0.5, 0.4, 0.3, 0.1, 0.1])
    assert read_weights(["style=-2"])[0].at(7) == -2.0


def test_components_are_added_and_what_was_judged_is_kept():
    right, wrong = attempt(1.0, correct=1.0, format=0.0), attempt(0.0, correct=0.0, format=1.0)
    logged = compose([right, wrong], read_weights(["format=1:0.5,3:0"]), step=2)
    assert (right.reward, wrong.reward) == (1.0, 0.25)
    assert wrong.rewards == {"correct": 0.0, "format": 1.0, "judged": 0.0}
    assert logged == {"reward_weight/format": 0.25}


def test_attempts_that_are_learnt_from_again_are_weighed_anew():
    again = attempt(1.0, format=1.0)
    for step, expected in ((1, 1.5), (2, 1.25), (3, 1.0)):
        compose([again], read_weights(["format=1:0.5,3:0"]), step)
        assert again.reward == expected


def test_the_own_reward_can_be_left_out_and_then_need_not_be_known():
    unjudged, without = attempt(math.nan, length=3.0), attempt(1.0)
    compose([unjudged, without], read_weights(["reward=0", "length=2"]), step=0)
    assert (unjudged.reward, without.reward) == (6.0, 0.0)
    unknown = attempt(1.0, length=math.nan)
    compose([unknown], read_weights(["length=2"]), step=0)
    assert math.isnan(unknown.reward)


@pytest.mark.parametrize(
    "entry", ["format", "=1", "format=high", "format=inf", "format=0:1,0:2", "format=5:1,2:0", "format=-1:1", "format=0:1,2", "format=1,2"]
)
def test_entries_of_another_form_are_refused(entry: str):
    with pytest.raises(InputError, match="expected NAME=WEIGHT"):
        read_weights([entry])


def test_names_are_checked():
    with pytest.raises(InputError, match="twice"):
        read_weights(["format=1", "format=2"])
    with pytest.raises(InputError, match=r"judged by correct, format\. Did you mean format\?"):
        check_weights(read_weights(["reward=1", "fromat=1"]), {"correct", "format"})
    with pytest.raises(InputError, match="'style'"):
        compose([attempt(1.0, correct=1.0)], read_weights(["style=1"]), step=0)


def test_a_run_learns_what_the_weights_say_of_the_step(tmp_path):
    def words(task: Task, text: str) -> dict[str, float]:
        return {"reward": 0.0, "ones": float(text.count("1")), "constant": 3.0}

    small = {"steps": 3, "tasks_per_step": 2, "group_size": 4, "eval_tasks": 4, "eval_samples": 1, "quiet": True}
    etude.train("grpo", reward=words, reward_weights=("constant=1:1,3:0",), out=tmp_path / "fading", **small)
    rows = [row for row in Run.open(tmp_path / "fading").metrics() if "reward/mean" in row]
    assert [row["reward_weight/constant"] for row in rows] == [1.0, 0.5, 0.0]
    assert [row["reward/mean"] for row in rows] == [3.0, 1.5, 0.0]
    with pytest.raises(InputError, match="constant, correct"):
        etude.train("grpo", reward=words, reward_weights=("constnat=1",), out=tmp_path / "typo", **small)
