"""Search over steps: forks write what fresh prompts would, values guide it where they mean something, and a beam goes on with the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.models.value_model import ChanceValues
from etude.search.beam import BeamSearch
from etude.search.mcts import Search
from etude.search.mcts_star import StepSearch, back_up, value_guided
from etude.search.solved import Opinion, SolvedCritic
from etude.search.step_settings import StepSearchConfig
from etude.search.steps import Ask, StepWriter, step_params
from etude.search.tree import Statistics, Tree
from etude.search.value_targets import merged, split_tokens, targets_of, ways
from etude.tasks.loading import load_tasks
from etude.types import Completion, Message, Task

STEPS = 6
RIGHT, WRONG = 1, 0


class Coin:
    """A policy that writes a right step half of the time, in the place of a `StepWriter` with a model. A solution ends after STEPS steps."""

    context_length = 100

    def __init__(self) -> None:
        self.policy, self.ledger = self, Ledger()

    def render(self, messages: Sequence[Message]) -> list[int]:
        return [9]

    def write(self, asked: Sequence[Ask]) -> list[list[Completion]]:
        return [[self.step(ask, stream) for stream in ask.streams] for ask in asked]

    def step(self, ask: Ask, stream: int) -> Completion:
        random = Random(stream)
        token = 2 * random.randrange(3) + (random.random() < 0.5)
        last = len(ask.context) == STEPS
        return Completion(stream, list(ask.context), [token], f"{token}", [0.0], [0.0], [0], "eos" if last else "stop")

    def ends(self, step: Completion) -> bool:
        return step.stop_reason == "eos"

    def keep(self, *_: Any) -> None: ...

    drop = forget = keep


class Known:
    """The value of what a coin has written: right steps so far, less 2 for each wrong one, over STEPS."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def values(self, contexts: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]) -> list[float]:
        return [max(0.0, sum(1 if t % 2 else -2 for t in [*context[1:], *step]) / STEPS) for context, step in zip(contexts, steps, strict=True)]


def grown(values: Any, kind: type[StepSearch] = StepSearch, tasks: int = 20, critic: Any = None, **options: Any) -> tuple[StepSearch, list[Search]]:
    config = StepSearchConfig(**{"search_tokens": 60, "branch": 3, "step_retries": 0, **options})
    search = kind(Coin(), values, config, lambda *parts: stream_key(0, *parts), one_answer=True, critic=critic)  # type: ignore[arg-type]
    trees = search.plant([Task(f"t{i}", (Message("user", "?"),)) for i in range(tasks)], Random)
    search.grow(trees)
    return search, trees


def faultless(search: StepSearch, trees: Sequence[Search]) -> int:
    return sum(any(all(t % 2 for t in attempt.tokens) for _, attempt in search.solutions(tree)) for tree in trees)


def test_values_that_mean_something_find_sound_solutions_and_others_do_not() -> None:
    led, by_chance, beam = grown(Known()), grown(ChanceValues(0, Ledger())), grown(Known(), BeamSearch)
    # One attempt in 64 is sound by itself, and 60 tokens are ten attempts.
    assert faultless(*led) >= 14
    assert faultless(*beam) >= 10
    assert faultless(*by_chance) <= 6
    # Each expansion draws three steps and looks two ahead, and the one that reaches the limit is the last.
    assert all(tree.tokens < 60 + 5 for tree in led[1])
    assert led[0].writer.ledger.rollouts == sum(len(tree.tree.ends()) for tree in led[1])


def test_equal_steps_are_one_child_and_are_drawn_again() -> None:
    once, again = (grown(Known(), step_retries=n, branch=6, search_tokens=6)[1] for n in (0, 3))
    assert sum(len(t.tree.root.children) for t in once) < sum(len(t.tree.root.children) for t in again)
    for tree in again:
        texts = [child.state["text"] for child in tree.tree.children(0)]
        assert len(set(texts)) == len(texts) > 0


def test_the_rule_and_what_goes_up() -> None:
    tree = Tree({"tokens": []})
    first, second = tree.expand(0, [{}, {}], terminal=[False, False])
    first.own, second.own = Statistics(1, 0.4), Statistics(1, 0.5)
    first.statistics = Statistics(1, 0.6)
    back_up(tree, 0)
    assert (tree.root.statistics.visits, tree.root.statistics.value) == (1, pytest.approx(0.6))
    (below,) = tree.expand(first.number, [{}], terminal=[False])
    below.statistics = Statistics(1, 0.8)
    back_up(tree, first.number)
    # The child's mean replaces its own value: (1 * 0.8) / 1 with 2 visits; above, the mean of visited children.
    assert (first.statistics.visits, first.statistics.value) == (2, pytest.approx(0.8))
    assert (tree.root.statistics.visits, tree.root.statistics.value) == (2, pytest.approx(0.8))
    rule = value_guided(0.1, 0.2)
    assert rule(first, tree.root) == pytest.approx(0.8 + 0.1 * math.sqrt(2 * math.log(2) / 2))
    assert rule(second, tree.root) == pytest.approx(0.5 + 0.2)


def test_what_is_looked_ahead_at_is_blended_in() -> None:
    _, (tree,) = grown(Known(), tasks=1, iterations=1, roll_steps=1, blend=0.25)
    best = max(tree.tree.children(0), key=lambda node: node.statistics.visits)
    assert best.own.value == max(child.own.value for child in tree.tree.children(0)) > 0
    seen = (best.statistics.value - 0.75 * best.own.value) / 0.25
    assert min(abs(seen - value) for value in (0.0, best.own.value + 1 / STEPS)) < 1e-9


def test_a_critic_ends_what_is_solved_and_hints_at_the_rest() -> None:
    class Told(SolvedCritic):
        def ask(self, tasks: Any, steps: Any, streams: Any) -> list[Opinion]:
            return [Opinion(len(row) >= 2, "mind the sign" if len(row) < 2 else "", 3) for row in steps]

    search, trees = grown(Known(), tasks=3, critic=Told(None, hints=True))  # type: ignore[arg-type]
    assert max(node.depth for tree in trees for node in tree.tree.nodes) == 2
    assert any(node.state.get("hint") == "mind the sign" for tree in trees for node in tree.tree.nodes)
    assert search.solutions(trees[0])
    critic = SolvedCritic(None, hints=True)  # type: ignore[arg-type]
    assert critic.opinion("unsolved? add 3 next\nunsolved", 1) == Opinion(False, "unsolved? add 3 next", 1)
    assert critic.opinion("the answer is there: Solved", 1).solved
    assert not critic.opinion("who knows", 1).solved


def test_forks_write_what_fresh_prompts_would() -> None:
    policy, tasks = LanguageModel.load("tiny", device="cpu"), load_tasks("register-chain")
    params = step_params(tasks, SamplingParams(max_new_tokens=8), delimiter="\\n", step_tokens=0)
    prompt = policy.render(tasks.train_task(0, 0).opening)
    written, read = [], []
    for kept_bytes in (2**30, 0):
        ledger = Ledger()
        with StepWriter(policy, params, ledger, kept_bytes=kept_bytes) as writer:
            (firsts,) = writer.write([Ask("root", prompt, [1, 2])])
            for i, first in enumerate(firsts):
                writer.keep(i, first)
            seconds = writer.write([Ask(i, [*prompt, *first.tokens], [i + 5]) for i, first in enumerate(firsts)])
            written.append([(step.tokens, [round(p, 3) for p in step.logprobs]) for row in [firsts, *seconds] for step in row])
        read.append(ledger.prompt_tokens)
        assert ledger.generated_tokens == sum(len(tokens) for tokens, _ in written[-1])
        assert not policy.sampler._kept
    assert written[0] == written[1]
    assert read[0] == len(prompt) + 2 < read[1]
    with pytest.raises(InputError, match="played in turns"):
        step_params(load_tasks("calculator"), params, delimiter="\n", step_tokens=0)


def test_attempts_laid_over_each_other_are_read_on_few_ways() -> None:
    policy = LanguageModel.load("tiny", device="cpu")
    rows = [
        split_tokens(policy, policy.tokenizer(text, add_special_tokens=False)["input_ids"], "\n") for text in ("1+1=2\n2+1=3\n", "1+1=2\n2+1=4\n", "1+1=3\n")
    ]
    assert [len(row) for row in rows] == [2, 2, 1]
    tree, ends = merged([7], rows)
    assert (len(tree), ends) == (5, [2, 3, 4])
    targets = targets_of(tree, dict(zip(ends, (True, False, False), strict=True)), "tree", Random(0))
    assert targets == pytest.approx({0: 0.0, 1: 0.5, 2: 1.0, 3: 0.25, 4: 0.0})
    learnt = ways(tree, targets)
    assert [(prompt, steps) for prompt, steps, _ in learnt] == [([7], [rows[2][0]]), ([7], rows[1]), ([7], rows[0])]
    # Two ways go through the step that both begin with, and each learns its value beside what comes of it.
    assert [values for _, _, values in learnt] == [pytest.approx([0.0, 0.0]), pytest.approx([0.0, 0.5, 0.25]), pytest.approx([0.0, 0.5, 1.0])]
    del targets[1], targets[4]
    assert [values for _, _, values in ways(tree, targets)] == [[0.0, None, 0.25], [0.0, None, 1.0]]
    assert ways(tree, {0: 0.0}) == [([7], [], [0.0])]
