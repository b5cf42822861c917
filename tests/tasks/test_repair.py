"""The repair world: its rules, its lessons, and that there is one right behaviour to find."""

from __future__ import annotations

from random import Random

import pytest

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge
from etude.rollouts import EpisodeRequest, run_episodes
from etude.search import EnvironmentSearch, Limits, grow, uct
from etude.tasks.base import EPISODE_TAGS
from etude.tasks.builtin.repair import INPUTS, Repair, World, edits, output
from etude.tasks.loading import load_tasks
from etude.types import Message, Task

TASK = Task("t", (Message("user", "fix"),), None, {"program": "a=x*3;b=a*2;out b", "right": "a=x+3;b=a*2;out b", "examples": [4, 9]})


def test_the_rules() -> None:
    world = World(TASK)
    said = [world.act(a) for a in ["run", "a=x+4", "run", "a=3+x", "a=x+3", "c=a*2", "b=a* 2", "b=a*2", "out c", "b=a+b", "", "run"]]
    # Of `a=x+4`, one token was `*` and another 3; of `a=3+x` two are others; c, and spaces, are no statement of the program; an equal one changes nothing.
    assert said == ["24 54", "error", "24 54", "error", "ok", "error", "error", "error", "error", "error", "error", "14 24"]
    assert world.program == TASK.info["right"]


def test_an_episode_is_worth_what_other_inputs_say_and_is_gone_back_to() -> None:
    environment = Repair(turns=5).environment()
    environment.reset(TASK)
    environment.step("hm\nrun")
    state = environment.snapshot()
    environment.step("a=x+3")
    done = environment.step("submit")
    assert (done.reward, done.done, done.info["correct"]) == (1.0, True, 1.0)
    assert done.info[EPISODE_TAGS] == {"turns": 3, "edits": 1, "test_runs": 1, "invalid_actions": 0, "empty_patch": False}
    environment.restore(state)
    answers = [environment.step("fly") for _ in range(4)]
    assert [(a.done, a.reward) for a in answers] == [(False, 0.0)] * 3 + [(True, 0.0)]
    assert answers[-1].info[EPISODE_TAGS]["empty_patch"]


def test_what_fits_the_examples_is_right() -> None:
    tasks = load_tasks("repair:shown=2")
    for i in range(20):
        task = tasks.train_task(0, i)
        right, examples = task.info["right"], task.info["examples"]
        assert any(output(task.info["program"], x) != output(right, x) for x in examples)
        fitting = [p for p in edits(task.info["program"]) if all(output(p, x) == output(right, x) for x in examples)]
        assert right in fitting
        assert {tuple(output(p, x) for x in INPUTS) for p in fitting} == {tuple(output(right, x) for x in INPUTS)}
        assert tasks.verify(task, f"answer: {right}")["correct"] == 1.0
        assert tasks.verify(task, f"answer: {task.info['program']}")["correct"] == 0.0


def test_lessons_solve_their_tasks_unless_they_slip() -> None:
    def share(slips: float) -> tuple[float, int]:
        tasks = Repair(slips=slips)
        solved, longest = 0.0, 0
        for i in range(40):
            environment, task = tasks.environment(), tasks.train_task(0, i)
            environment.reset(task)
            said = [m.content for m in tasks.conversation(task, 0) if m.role == "assistant"]
            steps = [environment.step(text) for text in said]
            assert steps[-1].done
            assert not any(step.info["tool_errors"] for step in steps)
            solved, longest = solved + steps[-1].reward, max(longest, len(said))
        return solved / 40, longest

    assert share(0.0) == (1.0, 6)
    assert 0.5 < share(0.3)[0] < 0.9


def test_a_policys_episodes_and_searches_carry_what_the_world_says_of_them() -> None:
    policy, tasks = LanguageModel.load("tiny", device="cpu"), Repair(turns=3)
    params = SamplingParams(max_new_tokens=12)
    (attempt,) = run_episodes(policy, [EpisodeRequest(tasks.train_task(0, 0), 0, 7)], tasks, params, max_turns=3, ledger=Ledger())
    assert attempt.tags["turns"] == 3
    assert {"edits", "test_runs", "invalid_actions", "empty_patch", "tool_calls", "environment_reward"} <= attempt.tags.keys()
    judge([attempt], tasks)
    assert {"turns", "edits", "invalid_actions", "correct", "environment"} <= attempt.rewards.keys()
    with EnvironmentSearch(policy, tasks, params, tries=1, max_turns=3, ledger=Ledger(), stream=lambda task, place, node, i: stream_key(node, i)) as search:
        (grown,) = search.plant([tasks.train_task(0, 0)], Random)
        grow([grown], search.expand, search.evaluate, limits=Limits(1, 3), rule=uct())
    (found,) = search.attempts[0].values()
    assert {name: found.tags[name] for name in ("turns", "tool_calls")} == {"turns": 3, "tool_calls": 3}


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="statements is 9"):
        Repair(statements=9)
    with pytest.raises(InputError, match="wrong_first 2"):
        Repair(wrong_first=2)
