"""Which of several finished attempts is handed in: by the values on their paths, or after a debate of agents that read the attempts (SWE-Search, arXiv:2410.20285).

Nothing here knows what hidden tests say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from etude.models.responders import Asked, Responder
from etude.models.sampling import SamplingParams, stream_key
from etude.models.structured import ask_structured
from etude.search.acting import ActionTree, tokens_of
from etude.search.best_first import value_of
from etude.search.tree import Node, Tree
from etude.search.value_agent import Candidate, ValueAgent, shortened
from etude.types import Message

By = Literal["path", "value", "debate"]
"""The highest mean value along the path, the highest value of the last action, or what a debate comes to."""
CANDIDATE = "## Candidate"


@dataclass
class Choice:
    """What an agent of a debate, or its judge, comes to: the number of a candidate, and why."""

    explanation: str
    id: int


@dataclass(frozen=True)
class Debate:
    """Agents that say which candidate they would take, `rounds` times, reading what the others said last; then a judge that reads them all concludes."""

    responder: Responder
    params: SamplingParams
    agents: int = 5
    rounds: int = 3
    longest: int = 4000
    """Characters of a candidate that are shown."""

    def conclude(self, tree: ActionTree, candidates: Sequence[Node], key: Sequence[int | str]) -> tuple[int, str, int]:
        """The number of the node that is taken, why, and tokens read and written. Candidates are named 1, 2, ... in the debate.

        An answer that cannot be read, or names no candidate, is no vote. Without a conclusion the majority of the last round counts, and without one the path's values.
        """
        case = "\n\n".join(
            [
                "Several attempts at a task have ended. Say which one most likely does what the task asks, and why.",
                "## The task\n" + "\n".join(message.content for message in tree.opening),
                *(f"{CANDIDATE} {i}\n{self._shown(node)}" for i, node in enumerate(candidates, 1)),
            ]
        )
        said: list[Choice | None] = [None] * self.agents
        tokens = 0
        for number in range(self.rounds):
            told = [self._others(said, agent) for agent in range(self.agents)]
            asked = [Asked(f"{tree.task.id}/agent {agent}", (Message("user", f"{case}{told[agent]}"),)) for agent in range(self.agents)]
            said, spent = self._asked(asked, (*key, "debate", number), len(candidates))
            tokens += spent
        verdict = [Asked(f"{tree.task.id}/conclusion", (Message("user", f"{case}{self._others(said, None)}\n\nYou have the last word."),))]
        (last,), spent = self._asked(verdict, (*key, "conclusion"), len(candidates))
        votes = Counter(choice.id for choice in said if choice is not None).most_common(1)
        if last is None and votes:
            last = Choice("the majority of the debate", votes[0][0])
        if last is None:
            return by_path(tree.tree, candidates).number, "nobody in the debate could be read; taken by the values on the paths", tokens + spent
        return candidates[last.id - 1].number, last.explanation, tokens + spent

    def _asked(self, asked: Sequence[Asked], key: Sequence[int | str], count: int) -> tuple[list[Choice | None], int]:
        found = ask_structured(self.responder, asked, Choice, self.params, key=key)
        said = [each.value if each.value is not None and 1 <= each.value.id <= count else None for each in found]
        return said, sum(tokens_of(reply) for each in found for reply in each.replies)

    def _shown(self, node: Node) -> str:
        made = node.state["product"]
        value = value_of(node)
        words = node.state.get("explanation") or ""
        return "\n".join(
            [
                shortened(made if made is not None else node.state["text"], self.longest),
                *([f"a judge's value: {value:.0f}"] if value is not None else []),
                *([f"its words: {shortened(words, 600)}"] if words else []),
            ]
        )

    def _others(self, said: Sequence[Choice | None], own: int | None) -> str:
        others = [
            f"- agent {agent + 1}{' (you)' if agent == own else ''}: {choice.id}, {shortened(choice.explanation, 600)}"
            for agent, choice in enumerate(said)
            if choice is not None
        ]
        return "\n\n## What was said last\n" + "\n".join(others) if others else ""


def path_mean(tree: Tree, node: Node, values: Mapping[int, float] | None = None) -> float:
    """Mean of the values on the way to a node, the root's left out; the worst possible where there is none. values: others than the nodes' own, by number."""
    own = (value_of(above) if values is None else values.get(above.number) for above in tree.path(node.number))
    known = [value for value in own if value is not None]
    return mean(known) if known else -100.0


def by_path(tree: Tree, nodes: Sequence[Node], values: Mapping[int, float] | None = None) -> Node:
    """The node with the highest mean value on its path; of equals the first."""
    return max(nodes, key=lambda node: (path_mean(tree, node, values), -node.number))


def by_value(nodes: Sequence[Node]) -> Node:
    """The node with the highest value of its own; of equals the first."""
    return max(nodes, key=lambda node: (value if (value := value_of(node)) is not None else -100.0, -node.number))


def valued_again(tree: ActionTree, nodes: Sequence[Node], agent: ValueAgent, key: Sequence[int | str]) -> tuple[dict[int, float], int]:
    """Further opinions of all actions on the way to some nodes, by their numbers, and the tokens that they took. The values that a search followed are higher than they should
    be where it followed them, by the winner's curse; these are not."""
    wanted = sorted({above.number for node in nodes for above in tree.tree.path(node.number)[1:]})
    asked = []
    for number in wanted:
        node = tree.tree.nodes[number]
        assert node.parent is not None, "the root is on no list"
        asked.append(Candidate(tree, node.parent, node.state, node.terminal, stream_key(*key, "again", number)))
    said = agent.values(asked)
    found = {number: valued.value for number, valued in zip(wanted, said, strict=True) if valued.value is not None}
    return found, sum(valued.tokens for valued in said)


def candidates(tree: ActionTree) -> list[Node]:
    """Finished attempts that made different things: of equal ones that with the highest mean value on its path. Those that made nothing are left out, unless the environment
    makes nothing to be shown: then attempts differ by their actions."""
    found: dict[str, Node] = {}
    for node in tree.finished():
        made = node.state["product"]
        if made == "":
            continue
        name = made if made is not None else "\n".join(above.state["action"] for above in tree.tree.path(node.number)[1:])
        found[name] = by_path(tree.tree, [found[name], node]) if name in found else node
    return sorted(found.values(), key=lambda node: node.number)


def pick(
    tree: ActionTree, by: By = "path", *, debate: Debate | None = None, again: ValueAgent | None = None, key: Sequence[int | str] = ()
) -> tuple[int | None, str, int]:
    """The node that is handed in, why, and tokens that choosing took. A single candidate is taken; without one the leaf with the best path; None where nothing was done.

    debate: who argues, for `by="debate"`. again: who values the candidates' paths anew, for `by="path"`.
    """
    choices = candidates(tree)
    if not choices:
        leaves = tree.leaves()
        return (by_path(tree.tree, leaves).number, "no attempt has ended with something made; the best leaf", 0) if leaves else (None, "nothing was done", 0)
    if len(choices) == 1:
        return choices[0].number, "the only candidate", 0
    if by == "debate" and debate is not None:
        return debate.conclude(tree, choices, key)
    if by == "value":
        return by_value(choices).number, f"the highest value of {len(choices)} candidates", 0
    values, tokens = valued_again(tree, choices, again, key) if again is not None else (None, 0)
    return by_path(tree.tree, choices, values).number, f"the highest mean value on the path of {len(choices)} candidates", tokens
