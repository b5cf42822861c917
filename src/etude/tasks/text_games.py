"""Text adventures as tasks (extra `textworld`): each game file is one task, played turn by turn, and its score is the reward."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from etude.errors import InputError, MissingExtra
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.types import Message, Task

ENDINGS = (".z8", ".z5", ".z3", ".ulx")
INSTRUCTION = "Play this text adventure. Each of your turns is one command, on its last line, such as: go north. Nothing else is read."
HELD_OUT_SHARE = 5
"""One game in so many is held out."""
_STATUS = re.compile(r"\s*\n>\s*(-=[^\n]*)?\s*\Z")
"""The prompt that an interpreter ends its answers with, and the line of status behind it: room, score and moves."""


class TextGames(TaskSet):
    """Games of TextWorld, or other games that it can run: files, or all of those in a folder.

    A fixed fifth of the games, by a hash of their names, is held out. The reward of a turn is the share of the game's highest score that it gained; `correct` is having won.
    """

    max_new_tokens = 64
    max_turns = 30

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises MissingExtra without the package, InputError for files that are no games and for fewer than two games."""
        if importlib.util.find_spec("textworld") is None:
            raise MissingExtra("textworld", "textworld", "playing text adventures")
        games = [game for path in paths for game in (sorted(p for p in path.iterdir() if p.suffix in ENDINGS) if path.is_dir() else [path])]
        for game in games:
            if not game.is_file() or game.suffix not in ENDINGS:
                raise InputError(f"{game} is no game file; expected files that end in {', '.join(ENDINGS)}, or a folder of them")
        if len(games) < 2:
            raise InputError(f"textworld: there are {len(games)} games; expected at least 2, one of which is held out (tw-make makes more)")
        self.name = "textworld"
        ordered = sorted(games, key=lambda game: hashlib.blake2b(game.name.encode(), digest_size=8).digest())
        held = max(1, len(ordered) // HELD_OUT_SHARE)
        self._held_out, self._train = ordered[:held], ordered[held:]
        self._tasks: dict[Path, Task] = {}

    @classmethod
    def parse(cls, spec: str) -> TextGames:
        """From `FILE,FILE` or `FOLDER`."""
        return cls([Path(part.strip()).expanduser() for part in spec.split(",") if part.strip()])

    def train_task(self, seed: int, index: int) -> Task:
        epoch, place = divmod(index, len(self._train))
        order = list(range(len(self._train)))
        Random(f"textworld/{seed}/{epoch}").shuffle(order)
        return self._task(self._train[order[place]])

    def held_out(self) -> Sequence[Task]:
        return [self._task(game) for game in self._held_out]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        """A game is won by playing, never by a text."""
        return {"correct": 0.0}

    def environment(self) -> Environment:
        return TextGame()

    def _task(self, game: Path) -> Task:
        """The task of a game, whose prompt is what the game opens with. A game is started for it, once."""
        if game not in self._tasks:
            environment = TextGame()
            try:
                opening = environment.start(game)
            finally:
                environment.close()
            self._tasks[game] = Task(f"textworld/{game.name}", (Message("user", f"{INSTRUCTION}\n\n{opening}"),), info={"game": str(game)})
        return self._tasks[game]


class TextGame(Environment):
    """One game that is being played. It can't be set back; a search plays its turns again."""

    def __init__(self) -> None:
        self._game: Any = None
        self._score = 0.0
        self._most = 0.0

    def start(self, path: Path) -> str:
        """Start a game; returns what it is about, where the game says so, and what it shows first."""
        textworld: Any = importlib.import_module("textworld")
        wanted = textworld.EnvInfos(feedback=True, description=True, objective=True, score=True, max_score=True, won=True)
        self._game = textworld.start(str(path), request_infos=wanted)
        state = self._game.reset()
        self._score, self._most = float(state.get("score") or 0), float(state.get("max_score") or 0)
        told = [state.get("objective"), state.get("description")]
        return "\n\n".join(part.strip() for part in told) if all(told) else shown(state)

    def reset(self, task: Task) -> Sequence[Message]:
        self.start(Path(task.info["game"]))
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        command = (text.strip().splitlines() or ["look"])[-1].strip()
        state, _, done = self._game.step(command)
        before, self._score = self._score, float(state.get("score") or 0)
        gained = (self._score - before) / self._most if self._most else float(bool(state.get("won")))
        return EnvironmentStep((Message("user", shown(state)),), gained, bool(done), {"correct": float(bool(state.get("won")))})

    def close(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None


def shown(state: Mapping[str, Any]) -> str:
    """What a game shows a player, without its prompt for the next command."""
    return _STATUS.sub("", str(state["feedback"])).strip()
