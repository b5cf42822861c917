"""The same number of generated tokens on every question, spent in several ways: search over steps, beams, whole solutions chosen by value or by votes.

What a policy writes counts: proposals, what is looked ahead at, what is asked of the critic. What the value model reads is counted beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import NamedTuple

from etude.errors import InputError
from etude.evals.passk import task_interval, vote_labels
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.models.value_model import StepValues
from etude.rewards import judge
from etude.rollouts import group_rollouts
from etude.search.beam import BeamSearch
from etude.search.mcts import Search
from etude.search.mcts_star import StepSearch
from etude.search.solved import SolvedCritic
from etude.search.step_settings import StepSearchConfig, Way
from etude.search.steps import StepWriter, step_params
from etude.tasks.base import RIGHT, TaskSet
from etude.tasks.first_error import FLAWLESS, split_steps
from etude.types import Task, Trajectory, mean

AT_ONCE = 64
"""Trees that grow side by side."""


class Valued(NamedTuple):
    """A solution and its value in [0, 1]; whole: it came to its end."""

    attempt: Trajectory
    value: float
    whole: bool = True


@dataclass
class WayReport:
    """One way over all tasks. chosen: the answer that was given to each, judged. tokens: generated on each. found: ended solutions of each. spent: of all tasks."""

    way: str
    chosen: list[Trajectory]
    tokens: list[int]
    found: list[int]
    spent: Ledger
    sound: float | None
    """Share of tasks whose answer is right by steps that are all right; None where the task set cannot tell."""

    @property
    def accuracy(self) -> float:
        return mean([t.correct for t in self.chosen])

    @property
    def interval(self) -> tuple[float, float]:
        """95 % over tasks."""
        return task_interval([t.correct for t in self.chosen], 1)


def highest(solutions: Sequence[Valued]) -> Trajectory:
    """The whole solution with the highest value, the first of equal ones; the highest partial one where none is whole."""
    return max([s for s in solutions if s.whole] or solutions, key=lambda s: s.value).attempt


def voted(solutions: Sequence[Valued], answer_in: Callable[[str], str | None], *, weighted: bool) -> Trajectory:
    """A solution with the answer that most give, or that the largest sum of values stands behind; of equal answers the first. Solutions without an answer have no say."""
    labels = vote_labels([answer_in(s.attempt.last_text) for s in solutions])
    weight: dict[int, float] = {}
    for label, solution in zip(labels, solutions, strict=True):
        if label >= 0:
            weight[label] = weight.get(label, 0.0) + (solution.value if weighted else 1.0)
    winner = max(weight, key=lambda label: weight[label]) if weight else labels[0]
    return solutions[labels.index(winner)].attempt


@dataclass
class StepSearchMeasure:
    """Ways measured on some tasks. params: how a whole solution is drawn. values: who values; None serves votes alone. seed: of all random numbers."""

    policy: LanguageModel
    task_set: TaskSet
    config: StepSearchConfig
    params: SamplingParams
    values: StepValues | None = None
    beam_width: int = 3
    critic: Callable[[Ledger], SolvedCritic] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.step_params = step_params(self.task_set, self.params, delimiter=self.config.delimiter, step_tokens=self.config.step_tokens)
        if not self.config.search_tokens:
            raise InputError("--search-tokens is 0; ways are compared at equal tokens, so expected how many each may generate on a task")

    def report(self, ways: Sequence[Way], tasks: Sequence[Task], *, done: Callable[[str, int], None] = lambda way, tasks: None) -> list[WayReport]:
        """Each way on the same tasks; ways that choose among whole solutions choose among the same ones. `done` hears of a way and the tasks it has finished.

        Raises InputError for a way that needs values where nobody values.
        """
        if not ways or len(set(ways)) < len(ways):
            raise InputError(f"--ways is {list(ways)}; expected one or more different ones")
        if self.values is None and any(way != "votes" for way in ways):
            raise InputError("--value-model is not given; expected a folder that `etude train rest-mcts` wrote (RUN/model/value), `chance`, or --ways votes")
        made: dict[str, Made] = {}
        reports = []
        for way in ways:
            kind = "mcts" if way.startswith("mcts") else "beam" if way == "beam" else "samples"
            if kind not in made:
                made[kind] = Made([], [], Ledger())
                if self.values is not None:
                    self.values.ledger = made[kind].spent
                for at in range(0, len(tasks), AT_ONCE):
                    part, before = tasks[at : at + AT_ONCE], made[kind]
                    rows, tokens = self.sampled(part, before.spent) if kind == "samples" else self.searched(part, before.spent, beam=kind == "beam")
                    made[kind] = Made(before.rows + rows, before.tokens + tokens, before.spent)
                    done(way, len(made[kind].rows))
            done(way, len(tasks))
            reports.append(self.chosen(way, made[kind]))
        return reports

    def searched(self, tasks: Sequence[Task], ledger: Ledger, *, beam: bool = False) -> tuple[list[list[Valued]], list[int]]:
        """What MCTS*, or beams one after the other, found for each task, and the tokens; where nothing ended, the partial solution with the highest value."""
        assert self.values is not None
        found: list[list[Valued]] = [[] for _ in tasks]
        spent, going, pass_ = [0] * len(tasks), list(range(len(tasks))), 0
        critic = self.critic(ledger) if self.critic is not None else None
        while going:
            with StepWriter(self.policy, self.step_params, ledger) as writer:
                kind = BeamSearch if beam else StepSearch
                search = kind(writer, self.values, self.config, partial(stream_key, self.seed, pass_), one_answer=True, critic=critic)
                if isinstance(search, BeamSearch):
                    search.width = self.beam_width
                trees = search.plant([tasks[i] for i in going], lambda place: Random(stream_key(self.seed, "ties", place)))
                for i, tree in zip(going, trees, strict=True):
                    tree.tokens = spent[i]
                search.grow(trees)
            again = []
            for i, tree in zip(going, trees, strict=True):
                answered = tree.tree.root.closed and any(node.own.value >= self.config.end_gate for node in tree.tree.ends())
                if beam and not answered and spent[i] < tree.tokens < self.config.search_tokens:
                    again.append(i)
                found[i] += _valued(search, tree)
                spent[i] = tree.tokens
            going, pass_ = again, pass_ + 1
        return found, spent

    def sampled(self, tasks: Sequence[Task], ledger: Ledger) -> tuple[list[list[Valued]], list[int]]:
        """Whole solutions of each task until its tokens are spent, and the tokens."""
        found: list[list[Trajectory]] = [[] for _ in tasks]
        spent, going, round_ = [0] * len(tasks), list(range(len(tasks))), 0
        while going:
            # At first as many as there is room for whatever their length; then one after the other.
            count = max(1, self.config.search_tokens // self.params.max_new_tokens) if round_ == 0 else 1
            groups = group_rollouts(
                self.policy,
                [tasks[i] for i in going],
                self.task_set,
                self.params,
                group_size=count,
                stream=lambda task, place, sample, round_=round_: stream_key(self.seed, "sample", task.id, round_, sample),
                ledger=ledger,
            )
            for i, group in zip(going, groups, strict=True):
                found[i] += group.trajectories
                spent[i] += sum(max(1, t.generated_length) for t in group.trajectories)
            going, round_ = [i for i in going if spent[i] < self.config.search_tokens], round_ + 1
        flat = [t for row in found for t in row]
        values = iter(self.values.values([t.prompt for t in flat], [t.tokens for t in flat]) if self.values is not None else [0.0] * len(flat))
        return [[Valued(t, next(values)) for t in row] for row in found], spent

    def chosen(self, way: Way, made: Made) -> WayReport:
        """The answers that a way gives, judged."""
        voting, answer_in = way.endswith("votes"), self.task_set.answer_in
        picked = [voted(row, answer_in, weighted=way != "votes") if voting else highest(row) for row in made.rows]
        judge(picked, self.task_set)
        checked = [self.task_set.first_wrong_step(t.task, split_steps(t.last_text)) for t in picked]
        known = None not in checked
        sound = mean([float(first == FLAWLESS and t.correct >= RIGHT) for first, t in zip(checked, picked, strict=True)]) if known else None
        return WayReport(way, picked, made.tokens, [sum(s.whole for s in row) for row in made.rows], made.spent, sound)


class Made(NamedTuple):
    """What was written for each task, how many tokens that took on each, and all that it cost."""

    rows: list[list[Valued]]
    tokens: list[int]
    spent: Ledger


def _valued(search: StepSearch, tree: Search) -> list[Valued]:
    whole = [Valued(attempt, node.own.value) for node, attempt in search.solutions(tree)]
    if whole:
        return whole
    best = max(tree.tree.nodes, key=lambda node: node.own.value)
    return [Valued(search.solution(tree, best), best.own.value, whole=False)]
