"""Search over what an agent does next, many tasks at a time: choose a node of each tree, have the agent act there, value what came of it, send the value up.

    choose ──► act (a batch) ──► carry out ──► value (a batch) ──► back-propagate
      ▲                                                                │
      └────────────────────────────────────────────────────────────────┘

One action more a round and tree. Rules without a tree (an agent that starts again and again, or once) run in the same loop, so that what they are given and what they
cost can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.responders import Asked
from etude.models.sampling import stream_key
from etude.search.acting import ActionTree, Actor, Played
from etude.search.best_first import Exploit, Weights, best, expandable, newest_line, value_of
from etude.search.discriminator import By, Debate, pick
from etude.search.hindsight import From, Say, hindsight
from etude.search.tree import Node
from etude.search.value_agent import Candidate, ValueAgent, Valued

How = Literal["best-first", "restarts", "once"]
"""Which node is gone on from: the best of the whole tree; the newest, or the start where that attempt has ended; or the same until the first attempt has ended."""


@dataclass(frozen=True)
class Ends:
    """When the search of a tree ends. steps: environment steps; tokens: read and written by all models; finished: attempts that have ended (0: no limit).

    value: an attempt of at least this value ends it, once there are `least_finished` of them. The last action may take steps and tokens beyond the limit.
    """

    iterations: int = 100
    depth: int = 20
    children: int = 3
    steps: int = 0
    tokens: int = 0
    finished: int = 0
    value: float | None = None
    least_finished: int = 2

    def why(self, tree: ActionTree) -> str:
        """Why a tree may not grow further; empty where it may."""
        finished = tree.finished()
        good = [node for node in finished if self.value is not None and (value_of(node) or -100.0) >= self.value]
        reasons = {
            f"{self.iterations} iterations": tree.iterations >= self.iterations,
            f"{self.steps} environment steps": self.steps and tree.steps >= self.steps,
            f"{self.tokens} tokens": self.tokens and tree.tokens >= self.tokens,
            f"{self.finished} attempts have ended": self.finished and len(finished) >= self.finished,
            f"an attempt has the value {self.value}": good and len(finished) >= self.least_finished,
        }
        return next((said for said, reached in reasons.items() if reached), "")


@dataclass(frozen=True)
class Hindsight:
    """Whether and how an agent is told of other branches; see `etude.search.hindsight`."""

    say: Say = "feedback"
    which: From = "all"
    below: float = 100.0


@dataclass
class ActionSearch:
    """The search of some trees. judged: which actions are valued, all or only those that end an attempt (enough where nothing is chosen by values on the way).

    by, debate, again: how one of the finished attempts is taken in the end; see `etude.search.discriminator`. changed: called after each round. key: what its random numbers
    depend on.
    """

    actor: Actor
    agent: ValueAgent
    ledger: Ledger
    key: Sequence[int | str]
    how: How = "best-first"
    weights: Weights = field(default_factory=Weights)
    exploit: Exploit = "own"
    ends: Ends = field(default_factory=Ends)
    told: Hindsight = field(default_factory=Hindsight)
    judged: Literal["all", "ends"] = "all"
    by: By = "path"
    debate: Debate | None = None
    again: ValueAgent | None = None
    changed: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if self.how == "best-first" and self.judged == "ends":
            raise InputError(
                "a search that goes on from the best node needs the values of all actions (--judged all); --how restarts can do with those of the ends"
            )

    def round(self, trees: Sequence[ActionTree]) -> None:
        """One action more in each of some trees, or the end of it."""
        places = [(tree, node) for tree in trees if (node := self._next(tree)) is not None]
        notes = [self._note(tree, node) for tree, node in places]
        asked = [
            Asked(f"{tree.task.id}/{node.number}/{len(node.children)}", tree.conversation(node.number, note))
            for (tree, node), note in zip(places, notes, strict=True)
        ]
        acted = self.actor.turns(asked, (*self.key, "act"))
        # An attempt that has no room for a note may have room without it.
        again = [i for i, turn in enumerate(acted) if turn is None and notes[i]]
        bare = [replace(asked[i], messages=places[i][0].conversation(places[i][1].number)) for i in again]
        for i, turn in zip(again, self.actor.turns(bare, (*self.key, "act")) if bare else [], strict=True):
            acted[i], notes[i] = turn, ""
        played: list[tuple[ActionTree, Node, Played, str]] = []
        for (tree, node), turn, note in zip(places, acted, notes, strict=True):
            tree.iterations += 1
            if turn is None:
                node.closed = True
                continue
            tree.tokens += turn.tokens
            if self.how == "best-first" and tree.twin(node.number, turn.text) is not None:
                tree.add_duplicate(node.number, turn.text, hint=note, **Valued(None).entries())
                continue
            before = tree.steps
            played.append((tree, node, tree.play(node.number, turn.text), note))
            self.ledger.environment_steps += tree.steps - before
            self.ledger.rollouts += played[-1][2].done
        values = self._values([(tree, node, what) for tree, node, what, _ in played])
        for (tree, node, what, note), valued in zip(played, values, strict=True):
            tree.tokens += valued.tokens
            made = tree.add(node.number, what, hint=note, **valued.entries())
            if valued.value is not None:
                tree.tree.record(made.number, valued.value)
        for tree in trees:
            self._end(tree)
        self.changed()

    def _next(self, tree: ActionTree) -> Node | None:
        """The node to go on from; None, and the tree has ended, where there is none."""
        if not tree.ended:
            tree.ended = self.ends.why(tree)
        if tree.ended:
            return None
        if self.how == "best-first":
            free = expandable(tree.tree, most_children=self.ends.children, depth=self.ends.depth)
            node = best(tree.tree, free, self.weights, tree.random, self.exploit)
        else:
            node = newest_line(tree.tree, depth=self.ends.depth)
            if self.how == "once" and node is tree.tree.root and len(tree.tree) > 1:
                node = None
        if node is None:
            tree.ended = "nothing is left to go on from"
        return node

    def _note(self, tree: ActionTree, node: Node) -> str:
        if self.how != "best-first":
            return ""
        return hindsight(tree.tree.children(node.number), say=self.told.say, which=self.told.which, below=self.told.below)

    def _values(self, played: Sequence[tuple[ActionTree, Node, Played]]) -> list[Valued]:
        wanted = [i for i, (_, _, what) in enumerate(played) if self.judged == "all" or what.done]
        candidates = []
        for tree, node, what in (played[i] for i in wanted):
            stream = stream_key(*self.key, "value", tree.task.id, len(tree.tree), node.number)
            candidates.append(Candidate(tree, node.number, what.state, what.done, stream))
        found = dict(zip(wanted, self.agent.values(candidates) if candidates else [], strict=True))
        self.ledger.task_evaluations += len(wanted)
        return [found.get(i, Valued(None)) for i in range(len(played))]

    def _end(self, tree: ActionTree) -> None:
        """Settle on a node of a tree that has just ended."""
        if not tree.ended:
            tree.ended = self.ends.why(tree)
        if tree.ended and not tree.why:
            tree.picked, tree.why, tokens = pick(tree, self.by, debate=self.debate, again=self.again, key=(*self.key, tree.task.id))
            tree.tokens += tokens

    def standing(self, tree: ActionTree) -> int | None:
        """The node that would be handed in now: what was settled on, or the best path so far."""
        return tree.picked if tree.why else pick(tree, "value" if self.by == "value" else "path")[0]
