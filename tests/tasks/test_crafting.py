"""The crafting world: its rules, its snapshots, what is wrong in it, its experts and their lessons."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from etude.errors import InputError
from etude.evals.loops import revision_delays, run_length
from etude.models.language import LanguageModel
from etude.tasks.begun import Begun, begun_after, play
from etude.tasks.builtin.crafting import ITEMS, Crafting, World
from etude.tasks.first_error import FLAWLESS
from etude.tasks.reflections import SHORT
from etude.types import Message, Segment, StartingPoint, Task, Trajectory

TASK = Task(
    "t", (Message("user", "make g: a from c d, g from a b, x from y z"),), "g", {"goal": "g", "recipes": {"a": ["c", "d"], "g": ["a", "b"], "x": ["y", "z"]}}
)
RIGHT = ["take c", "take d", "make a", "take b", "make g", "answer: g"]


def test_the_rules() -> None:
    world = World(TASK)
    assert world.missing() == ["c", "d", "a", "b", "g"]
    said = [world.act(a) for a in ["make a", "take a", "count", "take c", "make a", "take d", "hm, so\nmake a", "count", "hm, no", "", "take q"]]
    assert said == ["error", "error", "0", "ok", "error", "ok", "ok", "a c d", "ok", "error", "error"]
    assert world.missing() == ["b", "g"]
    assert [world.judged(a) for a in ("take b", "take c", "make g", "answer: g", "count", "hm")] == ["g", "b", "b", "b", "u", "u"]


def test_an_episode_its_reward_and_its_first_wrong_step() -> None:
    world = Crafting()
    done = play(world, TASK, [*RIGHT, "count"])
    assert (done.reward, done.turns, done.done) == (1.0, 6, True)
    failed = play(Crafting(partial=True), TASK, ["take c", "take y", *["make g"] * 20])
    # Of c, d, a, b, g and handing in, one was got.
    assert (failed.reward, failed.turns) == (pytest.approx(1 / 6), 14)
    assert world.first_wrong_step(TASK, RIGHT) == FLAWLESS
    assert world.first_wrong_step(TASK, ["take c", "count", "hm, no", "take c", "take d"]) == 3


def test_a_state_is_gone_back_to() -> None:
    environment = Crafting().environment()
    environment.reset(TASK)
    environment.step("take c")
    state = environment.snapshot()
    for action in RIGHT[1:]:
        last = environment.step(action)
    assert last.done
    environment.restore(state)
    assert environment.step("count").messages[0].content == "c"


def test_shallow_tasks_take_six_steps() -> None:
    for world, lengths in ((Crafting(shallow=True), {6}), (Crafting(), {6, 8})):
        assert {len(world.played(world.train_task(0, i), Random(i), 0.0)) for i in range(20)} == lengths


def test_directions_are_what_an_expert_does_who_does_not_err() -> None:
    world = Crafting(directions=True)
    for task in (world.train_task(0, i) for i in range(20)):
        steps, useless = task.prompt.removeprefix(f"make {task.answer}: ").split("; ")
        played = world.played(task, Random(0), 0.0)
        assert steps == ", ".join(f"{number} {action}" for number, (action, _) in enumerate(played, 1))
        assert [said for _, said in played] == [*(str(number) for number in range(2, len(played) + 1)), None]
        made, *parts = useless.replace(" from", "").split()
        assert task.info["recipes"][made] == parts
        assert not {made, *parts}.intersection(steps.split())
    # The tasks are those of the world without directions: only what is said of them differs.
    assert world.train_task(0, 0).info == {**Crafting().train_task(0, 0).info, "numbered": True}


def test_a_world_with_directions_says_which_is_the_next() -> None:
    world = World(replace(TASK, info={**TASK.info, "numbered": True}))
    said = [world.act(a) for a in ["make a", "take c", "take b", "take y", "count", "hm, no", "take d", "make g", "make a", "make g", "answer: g"]]
    assert said == ["error 1", "2", "2", "2", "b c y", "2", "3", "error 3", "5", "6", "6"]


def test_experts_think_in_words_that_the_method_changes_its_mind_with() -> None:
    world = Crafting(thoughts=0.2, slips=0.1)
    played = [turn for i in range(100) for turn in world.played(world.train_task(0, i), Random(i), 0.1)]
    thoughts = [said for action, said in played if action in SHORT]
    assert set(thoughts) <= {"ok", None}
    assert 0.05 < len(thoughts) / len(played) < 0.3
    with pytest.raises(InputError, match="thoughts is 2"):
        Crafting(thoughts=2)


def test_experts_err_and_then_repeat_themselves() -> None:
    world = Crafting(slips=0.25)
    episodes = [[a for a, _ in world.played(task, Random(i), 0.25)] for i in range(200) if (task := world.train_task(0, i))]
    failed = [e for e in episodes if len(e) == 14]
    assert 0.3 < 1 - len(failed) / 200 < 0.75
    assert run_length(failed) > 1.5 * run_length([e for e in episodes if len(e) < 14])


def test_lessons_are_about_steps_and_sometimes_mistaken() -> None:
    tokenizer = LanguageModel.load("tiny", device="cpu").tokenizer
    assert all(len(tokenizer(item)["input_ids"]) == 1 for item in ITEMS)
    taught = {noise: [Crafting(lessons=1.0, lesson_noise=noise).train_task(0, i) for i in range(100)] for noise in (0.0, 0.15)}
    exact, noisy = ([task.info["lesson"] for task in tasks] for tasks in taught.values())
    assert set(exact) == {"g", "b", "u"}
    assert min(exact.count("g"), exact.count("b")) > 20
    assert all(said == "b" for task, said in zip(taught[0.0], exact, strict=True) if task.prompt.endswith("error"))
    assert 0.05 < sum(a != b for a, b in zip(exact, noisy, strict=True)) / 100 < 0.3
    with pytest.raises(InputError, match="turns is 4"):
        Crafting(turns=4)


def test_episodes_that_begin_in_the_middle() -> None:
    world = Crafting()
    task = begun_after(world, TASK, ["take c", "make g"], "somebody")
    assert task is not None
    assert task.start is not None
    assert [m.content for m in task.start.messages] == ["take c", "ok", "make g", "error"]
    environment = Begun(world).environment()
    assert tuple(environment.reset(task)) == task.opening
    assert environment.step("count").messages[0].content == "c"
    assert begun_after(world, TASK, RIGHT, "somebody") is None
    lying = replace(TASK, start=StartingPoint((Message("assistant", "count"), Message("user", "c")), "somebody"))
    with pytest.raises(InputError, match="answered otherwise"):
        Begun(world).environment().reset(lying)


def test_loops_and_the_way_to_a_change_of_mind() -> None:
    assert run_length([["a", "a", "a", "b"], ["a"]]) == pytest.approx((3 + 1 + 1) / 3)
    actions = ["take c", "make g", "make g", "hm, no", "take d"]
    attempts = [Trajectory(TASK, [], [Segment([], "policy", a) for a in turns], "length") for turns in (actions, RIGHT, actions[:3])]
    assert revision_delays(attempts, Crafting(), lambda text: text.startswith("hm")) == [2]
