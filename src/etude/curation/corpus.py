"""The examples that a method has collected, and the order in which they are gone through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from etude.curation.examples import ORIGIN
from etude.rollouts.plain import trajectory_from_plain, trajectory_to_plain
from etude.run import Run
from etude.types import Trajectory


class Corpus:
    """Examples of all rounds so far. `taken` says how many batches have been drawn from the present choice of them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.examples: list[Trajectory] = []
        self.chosen: list[int] = []
        self.taken = 0

    def __len__(self) -> int:
        return len(self.examples)

    def add(self, examples: Sequence[Trajectory], round_: int) -> None:
        """Put in what a round gave."""
        for example in examples:
            origin = {**example.tags.get(ORIGIN, {}), "round": round_}
            self.examples.append(replace(example, parent=None, fork=0, tags={**example.tags, ORIGIN: origin}))

    def of_round(self, round_: int) -> list[int]:
        """The numbers of a round's examples."""
        return [i for i, e in enumerate(self.examples) if e.tags[ORIGIN]["round"] == round_]

    def forget(self, keep: Sequence[int]) -> None:
        """Drop all examples but those with these numbers."""
        self.examples = [self.examples[i] for i in keep]
        self.chosen = []

    def choose(self, numbers: Sequence[int]) -> None:
        """From now on go through these examples."""
        self.chosen, self.taken = list(numbers), 0

    def batch(self, size: int) -> list[Trajectory]:
        """The next `size` of the chosen examples, fewer only where there are no more in all: in an order drawn anew for every pass, across whose end a batch may reach."""
        if not self.chosen:
            return []
        size = min(size, len(self.chosen))
        places = range(self.taken * size, (self.taken + 1) * size)
        self.taken += 1
        return [self.examples[self._order(place // len(self.chosen))[place % len(self.chosen)]] for place in places]

    def _order(self, pass_: int) -> list[int]:
        order = list(self.chosen)
        self._run.rng("corpus", len(self.examples), pass_).shuffle(order)
        return order

    def state(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"examples": [trajectory_to_plain(e) for e in self.examples], "chosen": self.chosen, "taken": self.taken}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.examples = [trajectory_from_plain(plain) for plain in state["examples"]]
        self.chosen, self.taken = list(state["chosen"]), int(state["taken"])
