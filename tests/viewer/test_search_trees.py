"""The tree of a search as the report and the terminal draw it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from etude.search import Tree
from etude.search.record import tree_record
from etude.searching import SEARCH
from etude.viewer.live_search import LiveSearch
from etude.viewer.report import write_report
from etude.viewer.search_trees import MOST_ROWS, draw_search, drawn_searches, tree_lines


def family() -> Tree:
    """0 -> 1 -> 3 and 0 -> 2; 4 is made out of 3 and 2. The trials: 3 of 4 for 1, none of 2 for 2, 1 of 1 for 4."""
    tree = Tree({"name": "root"})
    for parents in (0, 0, 1, [3, 2]):
        tree.add(parents, {"name": f"<{len(tree)}>"})
    for number, value in [(1, 1.0), (1, 1.0), (1, 1.0), (1, 0.0), (2, 0.0), (2, 0.0), (4, 1.0)]:
        tree.record(number, value)
    return tree


RECORD = tree_record(family(), "five", label=lambda n: n.state["name"], details=lambda n: f"- a\n+ {n.state['name']}" if n.number == 4 else "", chosen=[4])


def test_a_row_is_a_node_below_what_it_came_of() -> None:
    drawn = draw_search(RECORD)
    assert drawn is not None
    assert [row.number for row in drawn.rows] == [0, 1, 3, 4, 2]
    root, one, three, four, two = drawn.rows
    assert root.x < one.x == two.x < three.x < four.x
    assert [row.y for row in drawn.rows] == sorted(row.y for row in drawn.rows)
    assert (one.own.text, one.clade.text, root.own.text) == ("75 % of 4", "80 % of 5", "not tried")
    assert (root.clade.fill, root.own.fill) == (4 / 7, None)
    # Where the most trials went the dot is largest; the second parent has a line of its own.
    assert one.radius == max(row.radius for row in drawn.rows)
    assert [len(row.further) for row in drawn.rows] == [0, 0, 0, 1, 0]
    assert [row.chosen for row in drawn.rows] == [False, False, False, True, False]


def test_what_is_no_share_has_no_bar_and_what_cannot_be_read_is_left_out() -> None:
    tree = Tree({})
    tree.record(0, -2.5)
    drawn = draw_search(tree_record(tree, "one", label=lambda n: ""))
    assert drawn is not None
    assert (drawn.rows[0].own.fill, drawn.rows[0].own.text) == (None, "-2.50 of 1")
    own_parent = {**RECORD["nodes"][1], "parents": [1]}
    assert drawn_searches({"trees": [{"nodes": []}, {"title": "t"}, {"title": "t", "nodes": [RECORD["nodes"][0], own_parent]}, 3]}) == []
    assert drawn_searches({}) == []


def test_of_a_large_tree_the_nodes_with_most_trials_are_shown_and_the_chosen_one() -> None:
    tree = Tree({})
    for _ in range(MOST_ROWS + 50):
        tree.add(0, {})
    tree.record(7, 1.0)
    record = tree_record(tree, "many", label=lambda n: "x", chosen=[MOST_ROWS + 40])
    drawn = draw_search(record)
    assert drawn is not None
    shown = {row.number for row in drawn.rows}
    assert {0, 7, MOST_ROWS + 40} <= shown
    assert len(shown) + drawn.hidden == MOST_ROWS + 51
    lines = [line.plain for line in tree_lines(record, 5)]
    assert lines[-1] == f"{MOST_ROWS + 46} more nodes"
    assert "  ○ 7  100 % of 1  x" in lines
    assert f"  ● {MOST_ROWS + 40}  not tried  x" in lines


def test_the_report_and_the_terminal_show_it(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    (folder / SEARCH).write_text(json.dumps({"step": 3, "trees": [RECORD]}))
    page = write_report(folder).read_text()
    assert "The search" in page
    assert "4 · &lt;4&gt;" in page
    assert "- a\n+ &lt;4&gt;" in page
    assert "<4>" not in page
    live = LiveSearch(console=Console(width=90, height=40, file=io.StringIO()))
    live._lines = tuple(tree_lines(RECORD, 9))
    assert [str(line) for line in live.pictures()][3] == "      ● 4  100 % of 1  <4>"
