"""What a search over steps is worth, by how well partial solutions can be valued.

No model: a scripted policy writes the steps of chains like those of `register-chain`, each right with a known probability, which differs from question to question. A wrong
step adds an error modulo a small number, so that a broken chain may end right by luck. Values are the quality values of ReST-MCTS* (`etude.rewards.quality`), known up to
normal noise. So it shows the search by itself, where a trained value model would be as good as it is: against a beam, the best of whole chains by the same values, and votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, cast

from etude.config import AtLeastOne, Count, NonNegative, Share
from etude.evals.passk import task_interval
from etude.evals.step_search import Valued, highest, voted
from etude.experiments.study import Findings, Table
from etude.ledger import Ledger
from etude.models.sampling import stream_key
from etude.models.value_model import ChanceValues, StepValues
from etude.search.beam import BeamSearch
from etude.search.mcts_star import StepSearch
from etude.search.step_settings import StepSearchConfig
from etude.search.steps import Ask, StepWriter
from etude.types import Completion, Message, Segment, Task, Trajectory, mean
from etude.viewer.numbers import percent

WAYS = ("mcts", "beam", "best-of-n", "votes")


@dataclass(frozen=True)
class Chains:
    """Questions and a policy. modulus: a chance end is right one time in so many. accuracy, spread: of a step, normal over questions, within [0.05, 0.95]."""

    steps: AtLeastOne = 10
    modulus: AtLeastOne = 5
    accuracy: Share = 0.7
    spread: NonNegative = 0.15

    def accuracy_of(self, random: Random) -> float:
        """Of a question."""
        return min(0.95, max(0.05, random.gauss(self.accuracy, self.spread)))

    def value(self, errors: Sequence[int]) -> float:
        """The quality value of a chain so far, from the error that each step added (0: none): what comes after the first wrong step is wrong, and as far from the end."""
        right = next((k for k, error in enumerate(errors) if error), len(errors))
        value = right / self.steps
        for _ in errors[right:]:
            value = max(0.0, value - (1 - value) / (self.steps - right + 1))
        return value

    def ends_right(self, errors: Sequence[int]) -> bool:
        return len(errors) == self.steps and sum(errors) % self.modulus == 0


class ScriptedWriter:
    """A `StepWriter` without a model. A step is one token: 1 and the error that it adds. So tokens are steps."""

    def __init__(self, chains: Chains, accuracies: dict[int, float]) -> None:
        self.chains, self.accuracies, self.ledger = chains, accuracies, Ledger()
        self.policy = self
        self.context_length = chains.steps + 2

    def render(self, messages: Sequence[Message]) -> list[int]:
        return [-int(messages[0].content)]

    def write(self, asked: Sequence[Ask]) -> list[list[Completion]]:
        return [[self.step(ask.context, stream) for stream in ask.streams] for ask in asked]

    def step(self, context: Sequence[int], stream: int) -> Completion:
        random = Random(stream)
        right = random.random() < self.accuracies[-context[0]]
        token = 1 if right else 1 + random.randrange(1, self.chains.modulus)
        self.ledger.generated_tokens += 1
        return Completion(0, list(context), [token], str(token - 1), [0.0], [0.0], [0], "eos" if len(context) == self.chains.steps else "stop")

    def ends(self, step: Completion) -> bool:
        return step.stop_reason == "eos"

    def keep(self, *_: Any) -> None:
        """Nothing is kept: a step is a function of what stands before it."""

    drop = forget = keep


class NoisyValues:
    """Quality values with normal noise, the same for the same chain."""

    def __init__(self, chains: Chains, noise: float, seed: int) -> None:
        self.chains, self.noise, self.seed, self.ledger = chains, noise, seed, Ledger()

    def values(self, contexts: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]) -> list[float]:
        return [self._value([*context, *step]) for context, step in zip(contexts, steps, strict=True)]

    def _value(self, tokens: Sequence[int]) -> float:
        self.ledger.task_evaluations += 1
        true = self.chains.value([token - 1 for token in tokens[1:]])
        return min(1.0, max(0.0, true + Random(stream_key(self.seed, *tokens)).gauss(0, self.noise)))


def found(way: str, chains: Chains, values: StepValues, config: StepSearchConfig, *, questions: int, seed: int) -> list[list[int]]:
    """The chain that a way settles on for each question, as the errors of its steps. `config.search_tokens` are the steps that it may draw."""
    numbers = range(1, questions + 1)
    writer = ScriptedWriter(chains, {n: chains.accuracy_of(Random(stream_key(seed, "question", n))) for n in numbers})
    tasks = [Task(str(n), (Message("user", str(n)),)) for n in numbers]
    rows: list[list[Valued]] = [[] for _ in tasks]
    if way in ("mcts", "beam"):
        kind = StepSearch if way == "mcts" else BeamSearch
        search = kind(cast(StepWriter, writer), values, config, lambda *parts: stream_key(seed, way, *parts), one_answer=True)
        if isinstance(search, BeamSearch):
            # As wide as it can be and still come to the end of a chain.
            search.width = max(1, config.search_tokens // (config.branch * chains.steps))
        trees = search.plant(tasks, lambda place: Random(stream_key(seed, "ties", place)))
        search.grow(trees)
        for row, tree in zip(rows, trees, strict=True):
            ends = search.solutions(tree) or [(node, search.solution(tree, node)) for node in tree.tree.nodes]
            row += [Valued(attempt, node.own.value) for node, attempt in ends]
    else:
        for n, row in zip(numbers, rows, strict=True):
            for i in range(config.search_tokens // chains.steps):
                tokens: list[int] = []
                while len(tokens) < chains.steps:
                    tokens += writer.step([-n, *tokens], stream_key(seed, "whole", n, i, len(tokens))).tokens
                (value,) = values.values([[-n]], [tokens])
                end = sum(token - 1 for token in tokens) % chains.modulus
                row.append(Valued(Trajectory(tasks[n - 1], [-n], [Segment(tokens, "policy", str(end))], "eos"), value))
    picked = [voted(row, lambda text: text, weighted=False) if way == "votes" else highest(row) for row in rows]
    return [[token - 1 for token in t.tokens] for t in picked]


@dataclass(frozen=True)
class StudySettings(Chains):
    """Chains, the search, and what is varied."""

    budgets: tuple[AtLeastOne, ...] = (40, 80, 160)
    """Steps that may be drawn for a question."""
    noises: tuple[NonNegative, ...] = (0.1, 0.25)
    """Standard deviations of values."""
    lengths: tuple[AtLeastOne, ...] = (6, 10)
    """Steps of a chain, in a table of their own."""
    explorations: tuple[NonNegative, ...] = (0.0, 0.1, 0.4)
    """Weights of what was tried little (C), in a table of their own; `unvisited` is twice that."""
    branch: AtLeastOne = 4
    """Next steps that are drawn where a node is expanded."""
    roll_steps: Count = 1
    """Steps looked ahead."""
    questions: AtLeastOne = 300
    """Questions."""
    seed: int = 0
    """Of all random numbers."""


def study(settings: StudySettings) -> Findings:
    """Accuracy of each way by budget and noise, with values that mean nothing, by the length of chains, and by C."""
    middle, base = sorted(settings.budgets)[len(settings.budgets) // 2], settings.noises[0]
    cases: list[tuple[str, str, str, float]] = []

    def accuracy(way: str, chains: Chains, budget: int, noise: float | None, exploration: float = 0.1) -> float:
        values = ChanceValues(settings.seed, Ledger()) if noise is None else NoisyValues(chains, noise, settings.seed)
        config = StepSearchConfig(
            search_tokens=budget,
            iterations=budget,
            branch=settings.branch,
            step_retries=0,
            roll_steps=settings.roll_steps,
            exploration=exploration,
            unvisited=2 * exploration,
            max_steps=chains.steps,
        )
        return mean([float(chains.ends_right(errors)) for errors in found(way, chains, values, config, questions=settings.questions, seed=settings.seed)])

    for budget in settings.budgets:
        for noise in (*settings.noises, None):
            name = f"{budget} steps, {'values that mean nothing' if noise is None else f'noise {noise:g}'}"
            cases += [("noise", name, way, accuracy(way, settings, budget, noise)) for way in WAYS]
    for steps in settings.lengths:
        cases += [("length", f"{steps} steps a chain", way, accuracy(way, replace(settings, steps=steps), middle, base)) for way in WAYS]
    cases += [("exploration", f"C {c:g}", "mcts", accuracy("mcts", settings, middle, base, c)) for c in settings.explorations]
    titles = {
        "noise": "right answers by budget and noise",
        "length": f"by the length of chains, {middle} steps, noise {base:g}",
        "exploration": f"MCTS* by C, {middle} steps, noise {base:g}",
    }
    tables = []
    for kind, title in titles.items():
        rows: dict[str, dict[str, float]] = {}
        for case in cases:
            if case[0] == kind:
                rows.setdefault(case[1], {})[case[2]] = case[3]
        ways = list(dict.fromkeys(way for row in rows.values() for way in row))
        tables.append(Table(title, ["", *ways], [[name, *(percent(row[way]) for way in ways)] for name, row in rows.items()]))
    low, high = task_interval([float(i % 2) for i in range(settings.questions)], 1)
    values = {"accuracy": {kind: {f"{name}, {way}": value for k, name, way, value in cases if k == kind} for kind in titles}, "half_interval": (high - low) / 2}
    return Findings(values, tables)
