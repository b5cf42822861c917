"""Trees of a search: statistics, closing, selection rules, and the file form."""

from __future__ import annotations

import json
import math
from random import Random

import pytest

from etude.errors import InputError
from etude.search import Node, Statistics, Tree, puct, select, uct


def small() -> Tree:
    """A root with a terminal child (1) and an open one (2), which has two terminal children (3, 4) to come."""
    tree = Tree({"text": ""})
    tree.expand(0, [{"text": "a"}, {"text": "b"}], terminal=[True, False])
    return tree


def test_values_go_up_to_the_root_and_statistics_are_nobody_elses() -> None:
    tree = small()
    state = {"text": "c", "seen": [1]}
    tree.expand(2, [state, {"text": "d"}], terminal=[True, True], priors=[0.7, 0.3])
    before = tree.root.statistics
    for number, value in ((1, 0.0), (3, 1.0), (4, 0.5)):
        tree.record(number, value)
    assert (before, tree.root.statistics) == (Statistics(), Statistics(3, 1.5))
    assert (tree.nodes[2].statistics, tree.nodes[2].statistics.value) == (Statistics(2, 1.5), 0.75)
    assert Statistics().value == 0.0
    state["seen"].append(2)
    assert tree.nodes[3].state["seen"] == [1]
    assert [n.number for n in tree.path(4)] == [0, 2, 4]
    assert [n.number for n in tree.ends()] == [1, 3, 4]


def test_a_node_is_closed_when_nothing_below_it_is_open() -> None:
    tree = small()
    assert [n.closed for n in tree.nodes] == [False, True, False]
    tree.expand(2, [{"text": "c"}], terminal=[True])
    assert all(n.closed for n in tree.nodes)
    dead = small()
    dead.expand(2, [], terminal=[])
    assert dead.root.closed
    with pytest.raises(InputError, match="node 1 of the tree"):
        tree.expand(1, [{}], terminal=[True])


def test_the_rules_by_hand() -> None:
    parent, child = Node(0, None, 0, {}, statistics=Statistics(8, 2.0)), Node(1, 0, 1, {}, prior=0.5, statistics=Statistics(2, 1.0))
    assert uct(0.25)(child, parent) == pytest.approx(0.5 + 0.25 * math.sqrt(math.log(8) / 2))
    assert puct(1.0)(child, parent) == pytest.approx(0.5 + 0.5 * math.sqrt(8) / 3)
    assert uct()(Node(2, 0, 1, {}), parent) == math.inf
    assert puct(2.0)(Node(2, 0, 1, {}, prior=0.25), parent) == pytest.approx(2 * 0.25 * math.sqrt(8))


def test_closed_children_are_passed_over_and_ties_are_drawn() -> None:
    tree = Tree({})
    tree.expand(0, [{}, {}, {}], terminal=[True, False, False])
    tree.record(1, 1.0)

    def chosen(seed: int) -> int | None:
        node = select(tree, 0, uct(), Random(seed))
        return None if node is None else node.number

    assert {chosen(seed) for seed in range(20)} == {2, 3}
    tree.record(2, 1.0)
    assert chosen(0) == 3
    assert select(tree, 1, uct(), Random(0)) is None


def test_a_tree_is_written_read_and_shown() -> None:
    tree = small()
    tree.expand(2, [{"text": "c"}], terminal=[False], priors=[0.5])
    tree.record(1, 0.5)
    again = Tree.from_plain(json.loads(json.dumps(tree.to_plain())))
    assert again.nodes == tree.nodes
    again.record(4 - 1, 1.0)
    assert tree.root.statistics == Statistics(1, 0.5)
    assert tree.view(lambda n: n.state["text"] or "task") == "+ task  N=1 V=0.50\n  . a  N=1 V=0.50\n  + b  N=0 V=0.00\n    + c  N=0 V=0.00"
    assert len(tree.view(lambda n: "x", depth=1).splitlines()) == 3
    with pytest.raises(InputError, match="can't be read"):
        Tree.from_plain([{"state": {}}])


def test_nodes_can_be_added_at_any_time_and_have_several_parents() -> None:
    tree = small()
    third = tree.add(0, {"text": "c"})
    child = tree.add([2, third.number], {"text": "d"}, terminal=True)
    assert (child.parents, child.depth, tree.nodes[2].children, third.children) == ((2, 3), 2, [4], [4])
    # Reached on two ways, the root counts the value once.
    tree.record(4, 1.0)
    assert [n.statistics.visits for n in tree.nodes] == [1, 0, 1, 1, 1]
    assert [n.own.visits for n in tree.nodes] == [0, 0, 0, 0, 1]
    assert Tree.from_plain(json.loads(json.dumps(tree.to_plain()))).nodes == tree.nodes
    assert tree.view(lambda n: n.state["text"]).splitlines()[3] == "    . d  N=1 V=1.00  also from 3"
    # A finished node can be a parent too; then there is something below it to search.
    below = tree.add([1, 4], {"text": "e"})
    assert [tree.nodes[n].closed for n in (1, 4)] == [False, False]
    assert below.depth == 2
    for parents in ([], [1, 1], [9]):
        with pytest.raises(InputError, match="can't be made out of"):
            tree.add(parents, {})


def test_what_is_in_flight_counts_as_a_visit_that_brought_nothing() -> None:
    tree = small()
    tree.record(2, 1.0)
    tree.record(1, 1.0)
    tree.reserve(2)
    assert [n.reserved for n in tree.nodes] == [1, 0, 1]
    assert uct(0.25)(tree.nodes[2], tree.root) == pytest.approx(0.5 + 0.25 * math.sqrt(math.log(3) / 2))
    assert puct(1.0)(tree.nodes[2], tree.root) == pytest.approx(0.5 + math.sqrt(3) / 3)
    tree.release(2)
    assert [n.reserved for n in tree.nodes] == [0, 0, 0]
    with pytest.raises(InputError, match="nothing is in flight"):
        tree.release(2)
