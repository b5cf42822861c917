"""MCTS*: tree search over the steps of solutions, led by a value model (ReST-MCTS*, arXiv:2406.03816).

    descend by value ──► ask whether it is solved ──► b next steps, once, each valued ──► look a step or two ahead from the best ──► means go up
          ▲                                                                                                                         │
          └─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘

The value model stands in for playing to the end: a new child has a value at once, and what is looked ahead at only corrects that value. Many trees are grown in lock-step,
so that one batch serves all of them.

A right step raises the value by 1/K of a solution of K steps, so that the weight of what was tried little (`exploration`) has to be small beside that: larger ones turn
long problems into breadth-first search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from etude.errors import InputError
from etude.models.value_model import StepValues
from etude.search.mcts import Place, Search
from etude.search.selection import Rule
from etude.search.solved import SolvedCritic
from etude.search.step_settings import StepSearchConfig
from etude.search.steps import Ask, StepWriter, context_of, solution_of, step_state
from etude.search.tree import Node, Statistics, Tree
from etude.types import Completion, Task, Trajectory

Stream = Callable[..., int]
"""Key of the random numbers of a step, from the task's id, the place of its tree, and whatever tells the step apart (numbers and texts)."""

HINT = "hint"
"""What the critic said of a node's next step, in its state."""


def value_guided(exploration: float, unvisited: float) -> Rule:
    """V + C sqrt(2 ln N_parent / N) for a child that was visited; its own value + INF for one that was not."""

    def score(child: Node, parent: Node) -> float:
        visits = child.statistics.visits
        if not visits:
            return child.own.value + unvisited
        return child.statistics.value + exploration * math.sqrt(2 * math.log(max(1, parent.statistics.visits)) / visits)

    return score


def back_up(tree: Tree, number: int) -> None:
    """From an expanded node to the root: one more visit, and the mean value of the children by visits, sum N V / sum N."""
    for node in reversed(tree.path(number)):
        children = [tree.nodes[child].statistics for child in node.children]
        visits = sum(s.visits for s in children)
        value = sum(s.total for s in children) / visits if visits else node.statistics.value or node.own.value
        seen = node.statistics.visits + 1
        node.statistics = Statistics(seen, seen * value)


@dataclass
class StepSearch:
    """Trees over the steps of some tasks' solutions: `plant` them, then `grow`.

    writer: the policy. values: who values partial solutions. one_answer: end a tree at the first solution with a value from `end_gate` on; otherwise all is spent, as
    for gathering examples. Ended solutions are never visited again, and the statistics of a node are those of the search: `own` is what it was valued at first.
    """

    writer: StepWriter
    values: StepValues
    config: StepSearchConfig
    stream: Stream
    one_answer: bool = False
    critic: SolvedCritic | None = None
    tasks: list[Task] = field(default_factory=list, init=False)

    def plant(self, tasks: Sequence[Task], random: Callable[[int], Random]) -> list[Search]:
        """A tree of one node for each task. random: the generator for ties of a tree. Raises InputError for a prompt that leaves no room in the model's context."""
        policy = self.writer.policy
        planted = []
        for task in tasks:
            prompt = policy.render(task.opening)
            if len(prompt) + 1 >= policy.context_length:
                raise InputError(
                    f"the prompt of task {task.id!r} has {len(prompt)} tokens, but {policy.name} reads {policy.context_length} in all; "
                    "shorten the prompt or use a model with a longer context"
                )
            place = len(self.tasks)
            self.tasks.append(task)
            planted.append(Search(Tree({"tokens": prompt, "value": 0.0}), random(place), place))
        return planted

    def grow(self, searches: Sequence[Search]) -> None:
        """Grow all trees, in lock-step, until each has reached its limits, has its answer, or has nothing open."""
        rule, limits = value_guided(self.config.exploration, self.config.unvisited), self.config.limits()
        while True:
            front: list[Place] = []
            for search in searches:
                if (node := search.next(limits, rule)) is not None:
                    search.at = None
                    front.append((search, node))
            if not front:
                break
            self._expand(self._unsolved(front))
        self.forget(searches)

    def forget(self, searches: Sequence[Search]) -> None:
        """Let go of what the sampler keeps of some trees."""
        for search in searches:
            for node in search.tree.nodes:
                self.writer.forget((search.place, node.number))

    def solutions(self, search: Search) -> list[tuple[Node, Trajectory]]:
        """The ended solutions of a tree, in the order in which they were found, with the nodes that they end in; not judged."""
        return [(node, self.solution(search, node)) for node in search.tree.ends()]

    def solution(self, search: Search, node: Node) -> Trajectory:
        """What a node has written so far, as an attempt."""
        return solution_of(self.tasks[search.place], search.tree.path(node.number), self.config.delimiter.replace("\\n", "\n"))

    def _unsolved(self, front: Sequence[Place]) -> list[Place]:
        """Those that are not solved yet in the critic's opinion; the others end."""
        asked = [(search, node) for search, node in front if self.critic is not None and node.parent is not None]
        if self.critic is None or not asked:
            return list(front)
        steps = [[n.state["text"] for n in search.tree.path(node.number)[1:]] for search, node in asked]
        tasks = [self.tasks[search.place] for search, _ in asked]
        streams = [self._key(search, "critic", node.number) for search, node in asked]
        solved = set()
        for (search, node), opinion in zip(asked, self.critic.ask(tasks, steps, streams), strict=True):
            search.tokens += opinion.tokens
            if opinion.solved:
                solved.add((search.place, node.number))
                search.tree.finish(node.number)
                self._ended(search, node)
                back_up(search.tree, node.number)
            elif opinion.hint:
                node.state = {**node.state, HINT: opinion.hint}
        return [(search, node) for search, node in front if (search.place, node.number) not in solved]

    def _expand(self, front: Sequence[Place]) -> None:
        """Give nodes their children with their values, look ahead from the best of each, and send values up."""
        best: list[Place] = []
        for (search, _), made in zip(front, self.children(front), strict=True):
            if made:
                highest = max(child.own.value for child in made)
                best.append((search, search.random.choice([child for child in made if child.own.value == highest])))
        ahead = self._looked_ahead([(search, child) for search, child in best if not child.terminal])
        for search, child in best:
            seen = ahead.get((search.place, child.number))
            value = child.own.value if seen is None else (1 - self.config.blend) * child.own.value + self.config.blend * seen
            child.statistics = Statistics(1, value)
        for search, node in front:
            back_up(search.tree, node.number)

    def children(self, front: Sequence[Place]) -> list[list[Node]]:
        """Give nodes their children: the different next steps, each with what it is valued at as its `own` value."""
        drawn = self._proposals(front)
        contexts = [context_of(search.tree.path(node.number)) for search, node in front]
        flat = [(context, step) for context, steps in zip(contexts, drawn, strict=True) for step in steps]
        values = iter(self.values.values([context for context, _ in flat], [step.tokens for _, step in flat]))
        grown = []
        for (search, node), steps in zip(front, drawn, strict=True):
            valued = [next(values) for _ in steps]
            terminal = [self.writer.ends(step) or node.depth + 1 >= self.config.max_steps for step in steps]
            made = search.tree.expand(node.number, [step_state(s, v) for s, v in zip(steps, valued, strict=True)], terminal=terminal)
            for child, step, value in zip(made, steps, valued, strict=True):
                child.own = Statistics(1, value)
                search.evaluations += 1
                if child.terminal or HINT in node.state:
                    # What was written under a hint is gone on with without it.
                    self.writer.drop([step])
                else:
                    self.writer.keep((search.place, child.number), step)
                if child.terminal:
                    self._ended(search, child)
            self.writer.forget((search.place, node.number))
            grown.append(made)
        return grown

    def _key(self, search: Search, *parts: int | str) -> int:
        return self.stream(self.tasks[search.place].id, search.place, *parts)

    def _ended(self, search: Search, node: Node) -> None:
        self.writer.ledger.rollouts += 1
        if self.one_answer and node.own.value >= self.config.end_gate:
            search.tree.root.closed = True

    def _proposals(self, front: Sequence[Place]) -> list[list[Completion]]:
        """The different next steps of each node, of `branch` that are drawn."""
        config = self.config
        found: list[dict[tuple[str, bool], Completion]] = [{} for _ in front]
        missing = [config.branch] * len(front)
        for round_ in range(config.step_retries + 1):
            asked = [
                Ask(
                    (search.place, node.number),
                    self._context(search, node),
                    [self._key(search, node.number, round_, i) for i in range(count)],
                )
                for (search, node), count in zip(front, missing, strict=True)
            ]
            for place, ((search, _), steps) in enumerate(zip(front, self.writer.write(asked), strict=True)):
                search.tokens += sum(len(step.tokens) for step in steps)
                for step in steps:
                    # The end of an answer may be nothing but its token.
                    over = step.stop_reason == "eos"
                    if (step.text, over) in found[place] or not (step.text.strip() or over):
                        self.writer.drop([step])
                    else:
                        found[place][step.text, over] = step
                        missing[place] -= 1
            if not any(missing):
                break
        return [list(steps.values()) for steps in found]

    def _context(self, search: Search, node: Node) -> list[int]:
        """All that the policy reads before the next step: after a hint of the critic's, under the question with that hint."""
        path = search.tree.path(node.number)
        hint = node.state.get(HINT)
        if hint is None or self.critic is None:
            return context_of(path)
        policy = self.writer.policy
        told = [*policy.render(self.critic.hinted(self.tasks[search.place], hint)), *context_of(path[1:])]
        if len(told) + 1 >= policy.context_length:
            return context_of(path)
        self.writer.forget((search.place, node.number))
        return told

    def _looked_ahead(self, front: Sequence[Place]) -> dict[tuple[int, int], float]:
        """The highest value on the way ahead of each node; what was written there is not kept."""
        config, highest = self.config, dict[tuple[int, int], float]()
        going = [(search, child, context_of(search.tree.path(child.number)), (search.place, child.number)) for search, child in front]
        for ahead in range(config.roll_steps):
            asked = [Ask(key, context, [self._key(s, "ahead", child.number, ahead, i) for i in range(config.roll_branch)]) for s, child, context, key in going]
            rows = self.writer.write(asked)
            values = iter(self.values.values([a.context for a, row in zip(asked, rows, strict=True) for _ in row], [s.tokens for row in rows for s in row]))
            further = []
            for (search, child, context, key), row in zip(going, rows, strict=True):
                search.tokens += sum(len(step.tokens) for step in row)
                valued = [next(values) for _ in row]
                value, step = max(zip(valued, row, strict=True), key=lambda pair: pair[0])
                search.evaluations += len(row)
                highest[search.place, child.number] = max(value, highest.get((search.place, child.number), 0.0))
                self.writer.drop([other for other in row if other is not step])
                if ahead:
                    self.writer.forget(key)
                if self.writer.ends(step) or ahead + 1 == config.roll_steps:
                    self.writer.drop([step])
                else:
                    here = ("ahead", search.place, child.number, ahead)
                    self.writer.keep(here, step)
                    further.append((search, child, [*context, *step.tokens], here))
            going = further
        return highest
