"""A method without a model that takes a whole configuration, as methods on the common loop do: for tests of what is around the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Le

import etude.method
from etude.claim import Arm, Claim, Comparison
from etude.config import PolicyOptimizationConfig, TrainConfig
from etude.errors import InputError
from etude.evals.measures import Final
from etude.method import Method, State, register
from etude.run import Run
from etude.types import Metrics


@dataclass
class WalkConfig(PolicyOptimizationConfig):
    pull: Annotated[float, Gt(0), Le(1)] = 0.1
    """How far a step goes."""
    note: str | None = None


class Walk(Method):
    """Goes from 0 towards 1."""

    def __init__(self, config: TrainConfig[WalkConfig], run: Run) -> None:
        super().__init__(config.method, run)
        self.inputs = config.inputs

    def setup(self) -> None:
        if self.inputs.model == "absent":
            raise InputError("there is no model 'absent'")
        self.place = 0.0

    def step(self) -> Metrics:
        self.place += self.config.pull * (1 - self.place)
        return {"reward/mean": self.place}

    def evaluate(self) -> Metrics:
        return {"eval/pass@1": self.place}

    def state(self) -> State:
        return State(plain={"place": self.place})

    def load_state(self, state: State) -> None:
        self.place = state.plain["place"]

    def export(self, folder: Any) -> None:
        (Path(folder) / "place.txt").write_text(f"{self.place}")


@contextmanager
def registered_walk() -> Iterator[None]:
    """The method `walk` is known while this lasts, and so is whatever else is registered in its family meanwhile."""
    register(
        slug="walk",
        name="Walk",
        family="tests",
        paper="2402.03300",
        title="A walk",
        summary="Goes from 0 towards 1 | slowly.",
        config=WalkConfig,
        claim=Claim(
            statement="It arrives.",
            expectation="A long stride gets further than a short one.",
            arms=(Arm("long", "walk", {"pull": 0.5}), Arm("short", "walk", {"pull": 0.1})),
            budget="3-steps",
            tests=(Comparison("distance", "long", "short", Final("eval/pass@1")),),
        ),
    )(Walk)
    try:
        yield
    finally:
        for slug, method in list(etude.method._registered.items()):
            if method.card.family == "tests":
                del etude.method._registered[slug]
