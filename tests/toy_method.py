"""A deterministic method without a model, for tests of the run; as a script it drives one, and is killed where the test says."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.config import RunConfig
from etude.driver import drive
from etude.evals.collapse import Reading
from etude.method import Method, MethodCard, State
from etude.run import Run
from etude.types import Metrics
from etude.watch import Watch


@dataclass
class ToyConfig:
    tensors: bool = False
    lr: float = 0.1


class Toy(Method):
    """Walks a number towards 1 with noise from all the sources that a method may draw from."""

    card = MethodCard(slug="toy", name="Toy", family="test", paper="", title="", summary="")
    Config = ToyConfig

    def __init__(self, config: ToyConfig, run: Run) -> None:
        super().__init__(config, run)
        self.at_step: dict[int, Callable[[], None]] = {}
        self.set_up = 0
        self.evaluated: list[int] = []

    def setup(self) -> None:
        self.set_up += 1
        self.weight = 0.0
        self.history: list[float] = []
        if self.config.tensors:
            import torch

            self.tensor = torch.zeros(1000)

    def step(self) -> Metrics:
        number = self.run.step
        noise = self.run.rng("noise", number).gauss(0, 1) + random.random()
        self.weight += self.config.lr * (1 - self.weight) + 0.05 * noise
        self.history.append(self.weight)
        if self.config.tensors:
            import torch

            self.tensor = self.tensor * 0.9 + torch.randn(1000)
        ledger = self.run.ledger
        ledger.generated_tokens += 100
        ledger.rollouts += 4
        ledger.forward_equivalents += 0.1
        ledger.count_call("policy", 4)
        self.run.save_trajectories(number, [{"text": f"é {self.weight}", "reward": math.nan if number % 3 == 0 else noise}])
        if number in self.at_step:
            self.at_step[number]()
        metrics = {"reward/mean": self.weight, "reward/spread": math.nan if number % 4 == 0 else noise}
        if self.config.tensors:
            metrics["tensor/norm"] = float(self.tensor.norm())
        return metrics

    def evaluate(self) -> Metrics:
        self.evaluated.append(self.run.step)
        self.run.ledger.generated_tokens += 50
        self.run.ledger.rollouts += 2
        random.random()
        return {"eval/pass@1": round(abs(math.sin(7 * self.weight)), 1), "eval/length": self.weight}

    def state(self) -> State:
        state = State(plain={"weight": self.weight, "history": self.history})
        if self.config.tensors:
            state.tensors["tensor"] = self.tensor
        return state

    def load_state(self, state: State) -> None:
        self.weight = state.plain["weight"]
        self.history = list(state.plain["history"])
        if self.config.tensors:
            self.tensor = state.tensors["tensor"].clone()


class Watched(Toy):
    """A toy whose accuracy rises for `sound` of its own steps and is then nothing, while its reward goes on rising. Going back makes it young again."""

    def __init__(self, run: Run, sound: int = 4, every: int = 2) -> None:
        super().__init__(ToyConfig(), run)
        self.sound, self.every = sound, every

    def setup(self) -> None:
        super().setup()
        self.watch = Watch(self.every, self.read)

    def read(self) -> Reading:
        self.run.ledger.generated_tokens += 10
        self.run.ledger.rollouts += 1
        age = len(self.history)
        accuracy = 0.5 + 0.01 * age if age <= self.sound else 0.0
        metrics = {"probe/accuracy": accuracy, "probe/proxy": 0.1 * age, "probe/hidden": math.nan}
        return Reading(self.run.step, metrics, (accuracy,) * 8, (0.1 * age,) * 8, (("7", 0.1),))


def make_run(folder: Path, **options: Any) -> Run:
    settings = {"steps": 12, "evaluate_every": 3, "checkpoint_every": 4, "keep_last": 2, **options}
    return Run.create(RunConfig(out=folder, **settings), folder_name="toy")


FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "fcntl.flock"}


WATCHED = {"on_collapse": "rollback", "most_rollbacks": 9}


def _method(run: Run) -> Method:
    return Watched(run) if run.config.on_collapse != "warn" else Toy(ToyConfig(), run)


def _drive_once(folder: Path, kill_at: int | None) -> int:
    """Start or resume the run in a child process and kill it right before its `kill_at`-th file operation; returns how many it did, or -1 when killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        seen = 0

        def audit(event: str, _: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in FILE_EVENTS:
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        began = (folder / "metrics.jsonl").exists() or (folder / "checkpoints").exists()
        run = Run.open(folder)
        sys.addaudithook(audit)
        drive(_method(run), run, resume=began)
        os.write(writer, str(seen).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return -1
    if status != 0:
        raise SystemExit(f"the child failed with status {status}")
    return int(said)


def crash_everywhere(root: Path, stride: int, seed: int, options: dict[str, Any]) -> None:
    """Drive one run unharmed; then one for every `stride`-th file operation, killed there and resumed; then one killed again and again.

    Prints the folders as JSON, the unharmed one first.
    """
    folders = [root / "whole"]
    make_run(folders[0], **options)
    operations = _drive_once(folders[0], None)
    for kill_at in range(1, operations + 1, stride):
        folder = root / f"killed-at-{kill_at}"
        make_run(folder, **options)
        if _drive_once(folder, kill_at) != -1:
            raise SystemExit(f"the run was not killed at operation {kill_at} of {operations}")
        _drive_once(folder, None)
        folders.append(folder)
    dice = random.Random(seed)
    folder = root / "killed-often"
    make_run(folder, **options)
    kills = 0
    while _drive_once(folder, dice.randint(40, 120)) == -1:
        kills += 1
    folders.append(folder)
    print(json.dumps({"operations": operations, "kills": kills, "folders": [str(f) for f in folders]}))


if __name__ == "__main__":
    crash_everywhere(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), WATCHED if "watched" in sys.argv[4:] else {})
