"""The attempts at one task: all of them in a tree (an attempt may be made out of several), and those that are the pool which further ones are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from etude.search.attempt_operators import Origin
from etude.search.population import Alike, alike_parts, children_of, elite_and_diverse
from etude.search.tree import Node, Tree
from etude.types import mean

ROOT = (0,)
"""Parents of an attempt that was made out of no other."""


@dataclass(frozen=True)
class Attempt:
    """One attempt, as plain values: everything but what the verifier said of it.

    operator: what made it (`plan`, `mutate`, or an `Operator`). plan, guidance: the style that it descends from, and all that its system message was told. turns: author and
    text of each. artefact: what came of it, a patch (`patched`) or an answer. facts: what the environment counted. rules: which of them hold. summary: of a model, empty
    where it wrote none that could be read. calls: of models, for the attempt and everything about it.
    """

    operator: str
    plan: str
    guidance: str
    turns: Sequence[Sequence[str]]
    artefact: str
    patched: bool
    status: str
    facts: Mapping[str, Any]
    rules: Mapping[str, bool]
    summary: Mapping[str, Any]
    value: float
    calls: int

    @property
    def actions(self) -> str:
        """What the model wrote."""
        return "\n".join(self.written)

    @property
    def written(self) -> list[str]:
        """The model's turns."""
        return [text for author, text in self.turns if author == "policy"]

    @property
    def steps(self) -> list[str]:
        """The model's turns, or the lines of a single one."""
        return self.written if len(self.written) > 1 else self.actions.splitlines() or [""]

    def to_plain(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def parts(self) -> list[str]:
        """What it is compared with others by: the lines that its patch changes, or all its words. Patches of one place have most words in common, whatever they do there."""
        if not self.patched:
            return self.actions.split()
        return [line for line in self.artefact.splitlines() if line.startswith(("+", "-")) and not line.startswith(("+++ ", "--- "))]


@dataclass(frozen=True)
class Birth:
    """An attempt that is to be made. number: which of its task's it will be. parents: numbers of others, none for a first attempt."""

    number: int
    operator: Origin
    parents: tuple[int, ...] = ()


@dataclass
class AttemptPool:
    """The tree's root is the task, and every other node an attempt. members: those that the next ones are made of, best first.

    verdicts: what the verifier said, by number; only measurements look at them. calls: of models so far. ended: why nothing more is tried. chosen: the attempt that was
    settled on, once it has ended.
    """

    tree: Tree
    members: list[int] = field(default_factory=list)
    verdicts: dict[int, float] = field(default_factory=dict)
    calls: int = 0
    ended: str | None = None
    chosen: int | None = None

    def __len__(self) -> int:
        return len(self.tree) - 1

    def attempt(self, number: int) -> Attempt:
        return Attempt(**self.tree.nodes[number].state)

    @property
    def numbers(self) -> range:
        """Numbers of all attempts."""
        return range(1, len(self.tree))

    @property
    def values(self) -> dict[int, float]:
        return {number: self.value(number) for number in self.numbers}

    def value(self, number: int) -> float:
        return self.tree.nodes[number].state["value"]

    def made_by(self, *operators: str) -> int:
        """How many attempts some operators made."""
        return sum(self.tree.nodes[number].state["operator"] in operators for number in self.numbers)

    def generation(self, number: int) -> int:
        """0 for a first attempt, and one more than its first parent's for any other."""
        return self.tree.nodes[number].depth - 1

    @property
    def children(self) -> Mapping[frozenset[int], int]:
        """How many attempts were made out of each set of parents."""
        return children_of(node.parents for node in self.tree.nodes[1:] if node.parents != ROOT)

    def alike(self) -> Alike:
        """How alike attempts are, by their parts."""
        return alike_parts({number: self.attempt(number).parts for number in self.numbers})

    def add(self, birth: Birth, attempt: Attempt, verdict: float) -> Node:
        """Take in an attempt that was made."""
        node = self.tree.add(birth.parents or ROOT, attempt.to_plain(), terminal=True)
        self.tree.record(node.number, attempt.value)
        self.verdicts[node.number] = verdict
        self.members.append(node.number)
        self.calls += attempt.calls
        return node

    def select(self, *, size: int, elite: int, most_alike: float) -> None:
        """Let go of what is neither good nor different enough. It stays in the tree, and may still be settled on."""
        values = self.values
        self.members = elite_and_diverse({n: values[n] for n in self.members}, self.alike(), size=size, elite=elite, most_alike=most_alike)

    def best(self) -> int | None:
        """The attempt of the highest value that may be settled on; of equal ones the first."""
        return max(self.candidates(), key=lambda number: (self.value(number), -number), default=None)

    def candidates(self) -> list[int]:
        """The attempts that keep all rules, or all where none does."""
        return [number for number in self.numbers if all(self.tree.nodes[number].state["rules"].values())] or list(self.numbers)

    def since_best(self) -> int:
        """How many attempts came after the one of the highest value."""
        values = self.values
        return len(self) - max(values, key=lambda number: (values[number], -number), default=0)

    def verdict(self, number: int | None) -> float:
        """What the verifier said, NaN where it could not; 0 where there is no attempt."""
        return 0.0 if number is None else self.verdicts.get(number, math.nan)

    def label(self, node: Node) -> str:
        """A node in a few words."""
        if node.parent is None:
            return str(node.state["task"])
        made = node.state["operator"]
        among = "" if node.parents == ROOT else f" of {', '.join(map(str, node.parents))}"
        return f"{made}{among}: {node.state['status']}" + ("" if node.number in self.members else ", let go")

    def details(self, node: Node) -> str:
        """The guidance that an attempt was given, what was made of it, and its findings."""
        if node.parent is None:
            return ""
        attempt = self.attempt(node.number)
        found = [f"{f['part']}: {f['what']} ({'worked' if f['worked'] else 'failed'})" for f in attempt.summary.get("findings", [])]
        broken = [name for name, holds in attempt.rules.items() if not holds]
        parts = [attempt.guidance, f"rules that do not hold: {', '.join(broken)}" if broken else "", "\n".join(found), attempt.artefact]
        return "\n\n".join(part for part in parts if part)

    def to_plain(self) -> dict[str, Any]:
        verdicts = {str(number): None if math.isnan(verdict) else verdict for number, verdict in self.verdicts.items()}
        plain = {name: getattr(self, name) for name in ("calls", "ended", "chosen")}
        return {"tree": self.tree.to_plain(), "members": list(self.members), "verdicts": verdicts, **plain}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> AttemptPool:
        verdicts = {int(number): math.nan if verdict is None else verdict for number, verdict in plain["verdicts"].items()}
        return cls(Tree.from_plain(plain["tree"]), list(plain["members"]), verdicts, plain["calls"], plain["ended"], plain["chosen"])


def begun(task_id: str) -> AttemptPool:
    """A pool without any attempt."""
    return AttemptPool(Tree({"task": task_id}))


def gains_by_operator(pools: Sequence[AttemptPool]) -> dict[str, list[float]]:
    """Of every attempt that was made out of others, how much higher its score is than its parents' mean; by what made it."""
    gains: dict[str, list[float]] = {}
    for pool in pools:
        for node in pool.tree.nodes[1:]:
            if 0 not in node.parents:
                before = mean([pool.value(parent) for parent in node.parents])
                gains.setdefault(node.state["operator"], []).append(node.state["value"] - before)
    return gains
