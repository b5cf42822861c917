"""The search loop: on a toy whose best path is known, in lock-step, within its limits; and over the turns of environments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from random import Random

import pytest

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.search import Child, EnvironmentSearch, Limits, Search, Tree, grow, uct
from etude.search.environment import context_of
from etude.search.mcts import Place
from etude.tasks.base import Environment, EnvironmentStep
from etude.tasks.builtin.calculator import Calculator, CalculatorEnvironment
from etude.tasks.builtin.crafting import Crafting
from etude.types import Message

POLICY = LanguageModel.load("tiny", device="cpu")


class Bits:
    """Paths of bits, worth the share of ones; a path of `length` bits ends."""

    def __init__(self, length: int) -> None:
        self.length, self.batches = length, list[int]()

    def expand(self, front: Sequence[Place]) -> list[list[Child]]:
        self.batches.append(len(front))
        return [[Child({"bits": node.state["bits"] + b}, terminal=node.depth + 1 == self.length) for b in "01"] for _, node in front]

    def evaluate(self, fresh: Sequence[Place]) -> list[float | None]:
        return [node.state["bits"].count("1") / node.depth if node.terminal else None for _, node in fresh]


def searches(count: int) -> list[Search]:
    return [Search(Tree({"bits": ""}), Random(i), i) for i in range(count)]


def test_descents_go_to_the_end_and_trees_grow_in_lock_step() -> None:
    bits, grown = Bits(3), searches(5)
    grow(grown, bits.expand, bits.evaluate, limits=Limits(1, 9), rule=uct())
    assert bits.batches == [5, 5, 5]
    assert all((len(s.tree), s.evaluations, s.tree.root.statistics.visits) == (7, 2, 2) for s in grown)
    many = searches(2)
    grow(many, bits.expand, bits.evaluate, limits=Limits(100, 9), rule=uct())
    # All 8 paths are found, each once, and then nothing is left to search.
    assert all(s.tree.root.closed and len(s.tree.ends()) == 8 and s.tree.root.statistics.value == 0.5 for s in many)


def test_limits_of_depth_evaluations_and_expansions() -> None:
    bits = Bits(6)
    (shallow,), (few,), (short,) = searches(1), searches(1), searches(1)
    grow([shallow], bits.expand, bits.evaluate, limits=Limits(100, 2), rule=uct())
    assert sorted(n.state["bits"] for n in shallow.tree.ends()) == ["00", "01", "10", "11"]
    grow([few], bits.expand, bits.evaluate, limits=Limits(100, 9, evaluations=4), rule=uct())
    assert few.evaluations == 4
    grow([short], bits.expand, bits.evaluate, limits=Limits(3, 9), rule=uct(), to_the_end=False)
    assert (short.iterations, len(short.tree)) == (3, 7)
    (thrifty,) = searches(1)

    def spending(front: Sequence[Place]) -> list[list[Child]]:
        for search, _ in front:
            search.tokens += 4
        return bits.expand(front)

    grow([thrifty], spending, bits.evaluate, limits=Limits(100, 9, tokens=10), rule=uct())
    assert thrifty.tokens == 12
    with pytest.raises(InputError, match="0 iterations"):
        Limits(0, 1)


def test_a_tree_grows_at_several_places_at_once() -> None:
    bits, (wide,) = Bits(4), searches(1)
    grow([wide], bits.expand, bits.evaluate, limits=Limits(11, 9), rule=uct(), to_the_end=False, width=3)
    # The root alone, its two children, three of their four, and so on; none is expanded twice, or Tree.expand would complain.
    assert bits.batches[:3] == [1, 2, 3]
    assert (sum(bits.batches), wide.iterations, len(wide.tree)) == (11, 11, 23)
    assert not any(node.reserved for node in wide.tree.nodes)
    with pytest.raises(InputError, match="width is 2"):
        grow([wide], bits.expand, bits.evaluate, limits=Limits(11, 9), rule=uct(), width=2)


def test_a_search_that_was_written_and_read_goes_on_as_if_it_had_not_been() -> None:
    bits, (whole,), (parted,) = Bits(5), searches(1), searches(1)
    grow([whole], bits.expand, bits.evaluate, limits=Limits(9, 9), rule=uct())
    grow([parted], bits.expand, bits.evaluate, limits=Limits(4, 9), rule=uct())
    again = Search.from_plain(json.loads(json.dumps(parted.to_plain())))
    grow([again], bits.expand, bits.evaluate, limits=Limits(9, 9), rule=uct())
    assert again.to_plain() == whole.to_plain()
    with pytest.raises(InputError, match="the search can't be read"):
        Search.from_plain({"tree": []})


def test_what_is_good_is_visited_more() -> None:
    bits, (search,) = Bits(5), searches(1)
    grow([search], bits.expand, bits.evaluate, limits=Limits(10, 9), rule=uct(0.1))
    zero, one = search.tree.children(0)
    assert one.statistics.visits > 2 * zero.statistics.visits


class ForgetfulEnvironment(CalculatorEnvironment):
    snapshot = Environment.snapshot


class Forgetful(Calculator):
    """The calculator without snapshots."""

    def environment(self) -> Environment:
        return ForgetfulEnvironment(self, self.max_turns)


def searched(task_set: Calculator | Crafting, ledger: Ledger) -> list[tuple[Search, EnvironmentSearch]]:
    params = SamplingParams(max_new_tokens=12, stop=tuple(task_set.stop))
    stream = lambda task, place, node, i: stream_key(task.id, place, node, i)  # noqa: E731
    search = EnvironmentSearch(POLICY, task_set, params, tries=3, max_turns=task_set.max_turns, ledger=ledger, stream=stream)
    with search:
        trees = search.plant([task_set.train_task(0, i) for i in range(3)], Random)
        grow(trees, search.expand, search.evaluate, limits=Limits(2, task_set.max_turns), rule=uct())
    return [(tree, search) for tree in trees]


def test_episodes_are_searched_alike_with_snapshots_and_by_replay() -> None:
    kept, replayed = Ledger(), Ledger()
    with_snapshots, without = searched(Calculator(), kept), searched(Forgetful(), replayed)
    for (one, search), (other, _) in zip(with_snapshots, without, strict=True):
        assert one.tree.to_plain() == other.tree.to_plain()
        attempts = search.attempts[one.place]
        assert sorted(attempts) == [node.number for node in one.tree.ends()]
        for number, attempt in attempts.items():
            assert attempt.reward == one.tree.nodes[number].statistics.value
            assert [*attempt.prompt, *attempt.tokens] == context_of(one.tree.path(number))
    # Every turn is a step; by replay also those that lead to where it is taken.
    turns = [node for one, _ in with_snapshots for node in one.tree.nodes[1:]]
    assert kept.environment_steps == len(turns)
    assert replayed.environment_steps == sum(node.depth for node in turns)
    assert kept.model_calls["policy"] == 3 * sum(bool(n.children) for one, _ in with_snapshots for n in one.tree.nodes)
    assert 0 < kept.rollouts <= kept.model_calls["policy"]
    assert kept.generated_tokens == replayed.generated_tokens > 0


class MoodyEnvironment(ForgetfulEnvironment):
    numbers = count()

    def step(self, text: str) -> EnvironmentStep:
        answer = super().step(text)
        return answer if answer.done else EnvironmentStep((Message("tool", str(next(self.numbers))),))


class Moody(Calculator):
    """Answers otherwise every time."""

    def environment(self) -> Environment:
        return MoodyEnvironment(self, self.max_turns)


def test_an_environment_that_cannot_be_gone_back_to_is_refused() -> None:
    with pytest.raises(InputError, match="can't be searched"):
        searched(Moody(), Ledger())
