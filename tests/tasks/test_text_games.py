"""Text adventures, with a stand-in for TextWorld that has its interface: one treasure, two steps away."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from etude.errors import InputError, MissingExtra
from etude.tasks.begun import play
from etude.tasks.loading import load_tasks


class Game:
    """`go north` and then `take coin` wins, with a point for each."""

    def __init__(self, path: str, infos: dict[str, bool]) -> None:
        self.infos, self.open = infos, True

    def state(self, feedback: str) -> dict[str, Any]:
        told = {
            "objective": "Get the coin.",
            "description": "A hall.\n",
            "feedback": f"\n{feedback} \n\n>                  -= Hall =-0/{self.score}",
            "score": self.score,
            "max_score": 2,
            "won": self.score == 2,
        }
        return {name: told[name] for name in self.infos}

    def reset(self) -> dict[str, Any]:
        self.score = 0
        return self.state("Welcome")

    def step(self, command: str) -> tuple[dict[str, Any], int, bool]:
        right = command == ("go north", "take coin")[self.score]
        self.score += right
        return self.state("Done." if right else "You can't do that."), self.score, self.score == 2

    def close(self) -> None:
        self.open = False


@pytest.fixture
def games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module: Any = ModuleType("textworld")
    module.__spec__ = importlib.machinery.ModuleSpec("textworld", None)
    module.EnvInfos = lambda **wanted: wanted
    module.start = lambda path, request_infos: Game(path, request_infos)
    monkeypatch.setitem(sys.modules, "textworld", module)
    for i in range(10):
        (tmp_path / f"game-{i}.z8").touch()
    return tmp_path


def test_games_are_played_and_scored(games: Path) -> None:
    tasks = load_tasks(f"textworld:{games}")
    task = tasks.train_task(0, 0)
    assert task.prompt.endswith("\n\nGet the coin.\n\nA hall.")
    won = play(tasks, task, ["dance", "I think\ngo north", "take coin", "go north"])
    assert (won.reward, won.turns, won.done) == (1.0, 3, True)
    assert [m.content for m in won.messages[1:] if m.role == "user"] == ["You can't do that.", "Done.", "Done."]
    environment = tasks.environment()
    assert environment is not None
    environment.reset(task)
    assert (environment.step("go north").reward, environment.step("take coin").info["correct"]) == (0.5, 1.0)
    environment.close()


def test_a_fifth_of_the_games_is_held_out(games: Path) -> None:
    tasks = load_tasks(f"textworld:{games}")
    held = {t.id for t in tasks.held_out()}
    trained = [tasks.train_task(1, i).id for i in range(16)]
    assert (len(held), len(set(trained[:8])), set(trained) & held) == (2, 8, set())
    assert trained[:8] != trained[8:]
    assert set(trained[:8]) == set(trained[8:])


def test_what_is_no_game_and_a_missing_package_are_refused(games: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (games / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt is no game file"):
        load_tasks(f"textworld:{games / 'game-1.z8'},{games / 'notes.txt'}")
    with pytest.raises(InputError, match="there are 1 games"):
        load_tasks(f"textworld:{games / 'game-1.z8'}")
    monkeypatch.delitem(sys.modules, "textworld")
    with pytest.raises(MissingExtra, match=r"etude\[textworld\]"):
        load_tasks(f"textworld:{games}")
