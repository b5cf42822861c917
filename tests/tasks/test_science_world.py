"""Experiments, with a stand-in for ScienceWorld that has its interface: two commands in the right order boil the water, and touching the stove spoils everything."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType
from typing import Any

import pytest

from etude.errors import InputError, MissingExtra
from etude.tasks import science_world
from etude.tasks.begun import play
from etude.tasks.loading import load_tasks

PATH = ["take pot", "heat pot"]


class World:
    """`boil` has 8 variations to train on and 4 to hold out, `melt` 2 and 1."""

    started = 0

    def __init__(self, name: str, envStepLimit: int) -> None:
        World.started += 1

    def get_task_names(self) -> list[str]:
        return ["boil", "melt"]

    def load(self, name: str, variation: int, simplifications: str, generateGoldPath: bool = False) -> None:
        self.name, self.variation, self.simplifications, self.gold = name, variation, simplifications, generateGoldPath

    def get_variations_train(self) -> range:
        return range(8 if self.name == "boil" else 2)

    def get_variations_dev(self) -> range:
        return range(8, 12) if self.name == "boil" else range(2, 3)

    def get_gold_action_sequence(self) -> list[str]:
        assert self.gold
        return PATH

    def reset(self) -> tuple[str, dict[str, Any]]:
        self.score, self.done = 10, 0
        return "A kitchen.\n", {"score": self.score, "taskDesc": f"Task: {self.name} {self.variation} ({self.simplifications})"}

    def step(self, command: str) -> tuple[str, int, bool, dict[str, Any]]:
        before = self.score
        if command == "touch stove":
            self.score = -100
        elif command == PATH[self.done]:
            self.done += 1
            self.score = (10, 50, 100)[self.done]
        return "Done. ", self.score - before, self.score in (100, -100), {"score": self.score}


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("scienceworld")
    module.__spec__ = importlib.machinery.ModuleSpec("scienceworld", None)
    module.ScienceWorldEnv = World
    monkeypatch.setitem(sys.modules, "scienceworld", module)
    monkeypatch.setattr(science_world.shutil, "which", lambda _: "/usr/bin/java")
    monkeypatch.setattr(science_world.Laboratory, "_free", [])


def test_an_experiment_is_scored_by_what_each_command_gains() -> None:
    tasks = load_tasks("scienceworld:boil:simple=easy+noElectricalAction")
    task = tasks.train_task(0, 0)
    assert task.prompt.endswith(f"Task: boil {task.info['variation']} (easy,noElectricalAction)\n\nA kitchen.")
    done = play(tasks, task, ["sing", "first\ntake pot", "heat pot", "sing"])
    assert (round(done.reward, 9), done.turns, done.done) == (0.9, 3, True)
    environment = tasks.environment()
    assert environment is not None
    environment.reset(task)
    first, second = environment.step("take pot"), environment.step("touch stove")
    assert (first.reward, first.done, second.reward, second.done, second.info["correct"]) == (0.4, False, -0.5, True, 0.0)
    environment.reset(task)
    assert [environment.step(command).info["correct"] for command in PATH] == [0.0, 1.0]
    environment.close()


def test_the_worlds_own_solution_is_an_episode_to_imitate() -> None:
    tasks = load_tasks("scienceworld:melt")
    task = tasks.held_out()[0]
    said = tasks.conversation(task, 0)
    assert said is not None
    assert [(m.role, m.content) for m in said[1:]] == [("assistant", "take pot"), ("user", "Done."), ("assistant", "heat pot")]


def test_the_worlds_split_is_kept_and_held_out_tasks_are_of_all_kinds() -> None:
    tasks = load_tasks("scienceworld::held_out=3")
    assert [t.id for t in tasks.held_out()] == ["scienceworld/boil/8", "scienceworld/melt/2", "scienceworld/boil/9"]
    trained = [tasks.train_task(1, i).id for i in range(20)]
    assert len(set(trained[:10])) == 10
    assert set(trained[:10]) == set(trained[10:])
    assert trained[:10] != trained[10:]


def test_worlds_are_started_only_for_episodes_at_the_same_time() -> None:
    World.started = 0
    tasks = load_tasks("scienceworld:boil")
    task = tasks.train_task(0, 0)
    episodes = [environment for _ in range(3) if (environment := tasks.environment()) is not None]
    for _ in range(2):
        for environment in episodes:
            environment.reset(task)
        for environment in episodes:
            environment.close()
    assert World.started == 3


def test_what_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no task .boyl.\. Did you mean boil"):
        load_tasks("scienceworld:boyl")
    with pytest.raises(InputError, match="turns is 0"):
        load_tasks("scienceworld:boil:turns=0")
    with pytest.raises(InputError, match="expected numbers for turns"):
        load_tasks("scienceworld:boil:turns=few")
    monkeypatch.setattr(science_world.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match="no java on the path"):
        load_tasks("scienceworld")
    monkeypatch.delitem(sys.modules, "scienceworld")
    with pytest.raises(MissingExtra, match=r"etude\[scienceworld\]"):
        load_tasks("scienceworld")
