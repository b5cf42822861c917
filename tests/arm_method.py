"""A method without a model for tests of comparisons: known to other processes by its module, with switches for what can go wrong in them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from etude.config import PolicyOptimizationConfig, TrainConfig
from etude.errors import InputError
from etude.method import Method, MethodCard, State
from etude.run import Run
from etude.types import Metrics


@dataclass
class ClimbConfig(PolicyOptimizationConfig):
    pull: float = 0.1
    """Share of the way to 1 that a step goes."""
    tokens: int = 100
    """Tokens that a step spends."""
    crash_seed: int = -1
    """This seed raises at its third step."""
    kill_once: str = ""
    """A file: while it is not there, the process makes it and is killed at the third step."""
    wait_for: str = ""
    """A file that the third step waits for."""
    unusable: bool = False


class Climb(Method):
    """Goes from 0 towards 1, a little further with every seed."""

    card = MethodCard(slug="climb", name="Climb", family="tests", paper="", title="", summary="")
    Config = ClimbConfig
    spends: ClassVar[frozenset[str] | None] = frozenset({"tokens", "rollouts"})

    def __init__(self, config: TrainConfig[ClimbConfig], run: Run) -> None:
        super().__init__(config.method, run)

    def setup(self) -> None:
        if self.config.unusable:
            raise InputError("this cannot be used")
        self.place = 0.0

    def step(self) -> Metrics:
        config = self.config
        if self.run.step == 3:
            if self.run.seed == config.crash_seed:
                raise RuntimeError("the third step went wrong")
            if config.kill_once and not Path(config.kill_once).exists():
                Path(config.kill_once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            while config.wait_for and not Path(config.wait_for).exists():
                time.sleep(0.01)
        self.place += config.pull * (1 - self.place) + 0.001 * (self.run.seed % 10)
        self.run.ledger.generated_tokens += config.tokens
        return {"reward/mean": self.place}

    def evaluate(self) -> Metrics:
        return {"eval/pass@1": self.place}

    def state(self) -> State:
        return State(plain={"place": self.place})

    def load_state(self, state: State) -> None:
        self.place = state.plain["place"]

    def export(self, folder: Any) -> None:
        pass


class Idle(Climb):
    """Spends nothing, and does not say so."""

    card = MethodCard(slug="idle", name="Idle", family="tests", paper="", title="", summary="")
    spends = None

    def step(self) -> Metrics:
        self.place += 0.1
        return {"reward/mean": self.place}
