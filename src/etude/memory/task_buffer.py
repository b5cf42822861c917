"""A buffer of things to practise, each with a score that says how much there is to learn from it.

Prioritised level replay (arXiv:2010.03934) in plain form: what was measured to be instructive is drawn more often, what was measured to be dull is driven out. Entries that
were derived from others begin with the score of where they came from, until they are measured themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal

from etude.errors import InputError

Sampling = Literal["softmax", "rank"]
"""How scores become chances: exp(kappa * score), or one over the rank by score."""


@dataclass(slots=True)
class Entry:
    """One thing to practise.

    id: equal ids are the same thing. group: what it was derived from, for the cap (the base task). item: what it is, as plain JSON values; the buffer never looks inside.
    step: when it came in, or was last measured. visits: how often it was measured; 0 means that the score is inherited.
    """

    id: str
    group: str
    item: Mapping[str, Any]
    score: float
    step: int
    visits: int = 0


class TaskBuffer:
    """Entries by id, at most `capacity`. When it is full, a new one takes the place of the one with the lowest score, unless its own is lower still.

    sampling, kappa: how scores become chances; kappa is the inverse temperature of `softmax`.
    per_group: entries of one group that were derived (0: any number). One more takes the place of the group's lowest, by the same rule.
    max_age: steps after which an entry leaves that was never measured (0: it stays): a score that was only inherited is not believed for ever.
    """

    def __init__(self, capacity: int = 512, *, sampling: Sampling = "softmax", kappa: float = 20.0, per_group: int = 0, max_age: int = 0) -> None:
        if capacity < 1:
            raise InputError(f"the buffer's capacity is {capacity}; expected at least 1")
        self.capacity, self.sampling, self.kappa, self.per_group, self.max_age = capacity, sampling, kappa, per_group, max_age
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self):
        return iter(self._entries.values())

    def __contains__(self, id_: str) -> bool:
        return id_ in self._entries

    def __getitem__(self, id_: str) -> Entry:
        return self._entries[id_]

    def measured(self, id_: str, group: str, item: Mapping[str, Any], score: float, step: int) -> bool:
        """Put in what was practised, or renew its score; False where it is new and not good enough."""
        known = self._entries.get(id_)
        if known is None:
            return self._put(Entry(id_, group, item, score, step, 1))
        known.score, known.step, known.visits = score, step, known.visits + 1
        return True

    def derived(self, id_: str, group: str, item: Mapping[str, Any], score: float, step: int) -> bool:
        """Put in what was derived from something with this score; False where it is known already, or not good enough."""
        if id_ in self._entries:
            return False
        entry = Entry(id_, group, item, score, step)
        # A group's own base, whose id is the group's, was not derived.
        siblings = [e for e in self if e.group == group and e.id != group]
        if self.per_group and len(siblings) >= self.per_group:
            return self._replace(siblings, entry)
        return self._put(entry)

    def chances(self) -> list[float]:
        """The chance of each entry to be drawn next, in their order. They add up to 1."""
        scores = [e.score for e in self]
        if self.sampling == "softmax":
            top = max(scores, default=0.0)
            weights = [math.exp(self.kappa * (score - top)) for score in scores]
        else:
            # Of equal scores the newer entry ranks first.
            order = sorted(range(len(scores)), key=lambda i: (-scores[i], -i))
            weights = [0.0] * len(scores)
            for rank, place in enumerate(order, 1):
                weights[place] = 1 / rank
        total = math.fsum(weights)
        return [weight / total for weight in weights]

    def sample(self, random: Random) -> Entry:
        """One entry, drawn by its chance. Raises InputError when there is none."""
        if not self._entries:
            raise InputError("the buffer is empty; expected at least one entry to draw from")
        return random.choices(list(self), self.chances())[0]

    def age(self, step: int) -> int:
        """Drop what was never measured and is older than `max_age` at this step; returns how many."""
        stale = [e.id for e in self if self.max_age and not e.visits and step - e.step > self.max_age]
        for id_ in stale:
            del self._entries[id_]
        return len(stale)

    def state(self) -> list[dict[str, Any]]:
        """All entries in their order, as plain values."""
        return [asdict(e) for e in self]

    def load_state(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go back to a saved state."""
        self._entries = {values["id"]: Entry(**values) for values in state}

    def _put(self, entry: Entry) -> bool:
        if len(self) >= self.capacity:
            return self._replace(list(self), entry)
        self._entries[entry.id] = entry
        return True

    def _replace(self, among: Sequence[Entry], entry: Entry) -> bool:
        """Put an entry in the place of the lowest of some, the oldest of equals, unless it is lower still."""
        lowest = min(among, key=lambda e: e.score)
        if entry.score < lowest.score:
            return False
        del self._entries[lowest.id]
        self._entries[entry.id] = entry
        return True
