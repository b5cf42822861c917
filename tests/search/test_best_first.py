"""Scores of nodes of a tree of actions, term by term against hand-worked numbers, and what an agent and a judge are told."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from etude.errors import InputError
from etude.search import best_first as bf
from etude.search.actions import files_in, kind_of, spans_in, stated_action
from etude.search.best_first import Weights, best, expandable, score, worth
from etude.search.hindsight import HEAD, hindsight
from etude.search.tree import Tree

PLAIN = Weights(exploration=0, late=0)


def state(value: float | None = None, kind: str = "look", **more: Any) -> dict[str, Any]:
    return {"value": value, "kind": kind, "failed": False, "duplicate": False, "files": [], "spans": [], "product": "", "action": kind, **more}


def grown() -> Tree:
    """A good look (60) with a poor edit (10) below it, and a poor look (-20)."""
    tree = Tree({})
    for parent, given in ((0, state(60)), (0, state(-20)), (1, state(10, "edit"))):
        tree.record(tree.add(parent, given).number, given["value"])
    return tree


def test_the_plain_score_is_value_exploration_and_depth() -> None:
    tree = grown()
    # N of the root is 3, of node 1 it is 2; ln 3 = 1.0986, ln 2 = 0.6931.
    assert score(tree, tree.nodes[1], Weights(exploration=30, late=0.8)) == pytest.approx(60 + 30 * math.sqrt(1.0986123 / 2) - 0.8)
    assert score(tree, tree.nodes[3], Weights(exploration=30, late=0.8)) == pytest.approx(10 + 30 * math.sqrt(0.6931472) - 0.8 * math.sqrt(2))
    # The root has no value of its own: (60 - 20 + 10) / 3. Its child that a judge failed at is worth nothing yet, and not infinitely much.
    assert worth(tree, tree.root) == pytest.approx(50 / 3)
    assert worth(tree, tree.add(0, state(None))) == 0
    assert worth(tree, tree.nodes[1], "clade") == 35
    assert worth(tree, tree.nodes[3], "path") == 35
    # alpha exp(-beta (depth - 1)) where there are children: depth 1 gives alpha.
    assert bf.early(tree, tree.nodes[1], Weights(early=200)) == 200
    assert bf.early(tree, tree.nodes[2], Weights(early=200)) == 0
    tree.add(3, state(0))
    assert bf.early(tree, tree.nodes[3], Weights(early=200, early_decay=0.8)) == pytest.approx(200 * math.exp(-0.8))


def test_every_heuristic_by_hand() -> None:
    tree = grown()
    good, poor, edit = tree.nodes[1:4]
    w = Weights(good_leaf=20, bad_only_child=5, great_child=5, poor_leaf=5, finished_path=50, correction=50, duplicates=25, same_kind=50, diversity=100)
    # Its only child, an edit, is poor: (60 - 10) * 5.
    assert bf.bad_only_child(tree, good, w) == 250
    assert bf.bad_only_child(tree, tree.root, w) == 0
    # A poor leaf of a good parent: (50 - 10) * 5.
    assert bf.poor_leaf(tree, edit, w) == 200
    assert bf.poor_leaf(tree, poor, w) == 0
    assert (bf.good_leaf(tree, good, w), bf.good_leaf(tree, tree.add(0, state(55)), w)) == (0, 20)
    failed = tree.add(2, state(0, failed=True))
    assert bf.correction(tree, failed, w) == 50
    for _ in range(2):
        tree.add(failed.number, state(80, "test"))
    # 50 / (1 + 2 ** 2); two tests, one of which is great.
    assert bf.correction(tree, failed, w) == 10
    assert bf.same_kind(tree, failed, w) == -50
    assert bf.great_child(tree, failed, w) == -5
    for _ in range(3):
        tree.add(edit.number, state(None, duplicate=True))
    assert bf.duplicates(tree, edit, w) == -225
    tree.add(edit.number, state(100, "finish"), terminal=True)
    assert [bf.finished_path(tree, node, w) for node in (tree.root, good, edit, poor)] == [0, -50, -50, 0]
    assert sum(abs(term(tree, node, Weights(exploration=0, late=0))) for term in bf.TERMS for node in tree.nodes) == 0


def test_states_that_are_unlike_the_others_earn_a_bonus() -> None:
    tree = Tree(state())
    tree.add(0, state(0, files=["a", "b"], spans=["a:1-9"], product="x"))
    tree.add(0, state(0, files=["b", "c"], spans=["a:1-9"], product="xy"))
    one, other = tree.nodes[1:]
    # 0.4 of 1/3 of the files, 0.2 of all places, 0.4 of 2 * 1 / 3 characters alike.
    assert bf.similarity(one, other) == pytest.approx(0.4 / 3 + 0.2 + 0.4 * 2 / 3)
    # The root has seen and made nothing: nothing in common with it.
    assert bf.diversity(tree, one, Weights(diversity=100)) == pytest.approx(100 * (1 - (0.6 + 0) / 2))


def test_what_may_be_expanded_and_presets() -> None:
    tree = grown()
    tree.add(0, state(90, duplicate=True))
    tree.add(0, state(90), terminal=True)
    free = expandable(tree, most_children=5, depth=2)
    assert [node.number for node in free] == [0, 1, 2]
    assert [node.number for node in expandable(tree, most_children=4, depth=2)] == [1, 2]
    assert best(tree, free, PLAIN, Random(0)) is tree.nodes[1]
    assert best(tree, [], PLAIN, Random(0)) is None
    assert Weights.preset("development", "good_leaf=7").good_leaf == 7
    assert (Weights.preset("refactored").low, Weights.preset("refactored").exploration) == (0, 1)
    for changes, said in (("depth=3", "is no setting"), ("late=deep", "expected a number")):
        with pytest.raises(InputError, match=said):
            Weights.preset("plain", changes)


def test_hindsight_tells_of_other_branches() -> None:
    tree = grown()
    tree.add(0, state(5, action="open a.py", explanation="it is elsewhere", feedback="open b.py"))
    children = tree.children(0)
    said = hindsight(children, which="latest")
    assert said.startswith(f"{HEAD}\ntried: open a.py\nvalue from -100 to 100: 5\nadvice: open b.py")
    assert "why: it is elsewhere" in hindsight(children, say="explanation", which="latest")
    assert hindsight(children).count("tried:") == 3
    assert "-20" in hindsight(children, which="worst")
    assert hindsight(children, below=-50) == hindsight(children, say="off") == hindsight([]) == ""


def test_actions_as_texts() -> None:
    turn = "Let me look.\n<action>view src/a.py 3-9  </action>"
    assert stated_action(turn) == "view src/a.py 3-9"
    assert stated_action("I think\nrun") == "run"
    assert stated_action("edit a.py\nx\n") == "edit a.py\nx"
    assert [kind_of(action) for action in ("view a", "a=b*2", "run", "submit", "suspect unit", "go north")] == [
        "look",
        "edit",
        "test",
        "finish",
        "plan",
        "other",
    ]
    assert files_in("edit src/a.py and b.toml\nc.py") == ["src/a.py", "b.toml"]
    assert spans_in("view src/a.py 3-9") == ["src/a.py:3-9"]
