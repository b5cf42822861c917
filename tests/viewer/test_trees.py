"""Trees of attempts in the report: where rows and columns go, what is left out, and that nothing a model wrote gets out of its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.viewer.report import write_report
from etude.viewer.trees import MOST_BRANCHES, MOST_COLUMNS, chosen_trees, draw_tree

MakeRun = Callable[..., Path]


def branch(number: int, parent: int | None, fork: int, texts: list[str], **entry: Any) -> dict[str, Any]:
    kept = {"sample": number, "answer": "".join(texts[-1:]), "correct": 1.0, "reward": 1.0, "rewards": {}, "stop_reason": "eos"}
    plain = {"number": number, "parent": parent, "fork": fork, "tokens": len(texts), "texts": texts, "entropies": [0.5] * len(texts)}
    return {**plain, "opened": "p 0.30", "pruned": "", **({} if entry.get("pruned") else kept), **entry}


def tree(*branches: dict[str, Any], step: int = 1, **entry: Any) -> dict[str, Any]:
    return {"step": step, "task_id": "t", "prompt": "1+1", "answer": "2", "suppressed": 0, "label": None, "branches": list(branches), **entry}


ROOT = branch(0, None, 0, ["a", "b", "c", "d"], entropies=[0.0, 1.0, 0.5, 0.0])
SMALL = tree(
    ROOT,
    branch(1, 0, 1, ["x", "y"], correct=0.0, reward=0.0),
    branch(2, 0, 3, ["z"], pruned="edit distance 0.25 after 4 tokens"),
    branch(3, 1, 2, ["w"], correct=None, reward=1.0),
    suppressed=3,
    label="7",
)


def test_a_branch_stands_below_the_words_it_might_have_been() -> None:
    drawn = draw_tree(SMALL)
    assert drawn is not None
    # The latest fork comes first below its parent, and each branch's own below it.
    assert [[c.text for c in row.cells] for row in drawn.rows] == [["a", "b", "c", "d"], ["z"], ["x", "y"], ["w"]]
    assert [row.kind for row in drawn.rows] == ["right", "pruned", "wrong", "unjudged"]
    root, pruned, left, leaf = drawn.rows
    assert left.cells[0].x == root.cells[1].x
    assert pruned.cells[0].x == root.cells[3].x
    assert leaf.cells[0].x == left.cells[1].x == root.cells[2].x
    assert root.dot is None
    assert pruned.dot is not None
    assert pruned.dot[0] == pytest.approx(root.cells[3].x - 1)
    # The most uncertain token of the tree has the most colour.
    assert [c.shade for c in root.cells] == [0, 0.75, 0.375, 0]
    assert pruned.said == "edit distance 0.25 after 4 tokens"
    assert leaf.said == "w, reward 1.00"
    assert drawn.facts == ["3 attempts", "1 pruned", "forks without room: 3", "voted answer: 7", "at most 1.00 nats a token"]


def test_no_line_crosses_a_row() -> None:
    drawn = draw_tree(tree(ROOT, *(branch(i, 0, fork, ["x"] * 6) for i, fork in enumerate((2, 0, 3, 1, 2), start=1))))
    assert drawn is not None
    for row in drawn.rows[1:]:
        assert row.dot is not None
        x, top = row.dot
        between = [other for other in drawn.rows if top < other.cells[0].y < row.cells[0].y]
        assert all(other.cells[0].x > x for other in between)


def test_long_trees_show_what_is_around_the_forks() -> None:
    long = [f"t{i}" for i in range(400)]
    drawn = draw_tree(tree(branch(0, None, 0, long), branch(1, 0, 200, long[200:]), branch(2, 0, 390, long[390:], tokens=50)))
    assert drawn is not None
    texts = [c.text for c in drawn.rows[0].cells]
    assert len(texts) <= MOST_COLUMNS
    assert {"t0", "t198", "t200", "t207", "t390", "t399"} <= set(texts)
    assert "t100" not in texts
    assert len({x for x, _ in drawn.gaps}) == 2
    assert drawn.rows[1].said.endswith(", 40 more tokens")
    assert [c.x for c in drawn.rows[0].cells] == sorted(c.x for c in drawn.rows[0].cells)


def test_large_trees_are_cut() -> None:
    drawn = draw_tree(tree(ROOT, *(branch(i, 0, 1, ["x"]) for i in range(1, 80))))
    assert drawn is not None
    assert len(drawn.rows) == MOST_BRANCHES
    assert "not drawn: 40 branches" in drawn.facts


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"step": 1, "branches": []},
        tree(branch(0, None, 0, [])),
        tree(branch(1, 7, 0, ["x"])),
        tree(branch(0, 1, 0, ["x"]), branch(1, 0, 0, ["y"])),
        tree(branch(0, None, 0, ["x"], entropies=[])),
        tree(branch(0, None, -1, ["x"])),
    ],
)
def test_what_is_no_tree_is_left_out(bad: dict[str, Any]) -> None:
    assert draw_tree(bad) is None
    assert len(chosen_trees([bad, SMALL])) == 1


def test_early_and_late_steps_are_shown(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "trees.jsonl").write_text("".join(json.dumps({**SMALL, "step": step, "prompt": f"task {step}"}) + "\n" for step in range(1, 21)))
    page = write_report(folder).read_text()
    assert [f"<code>task {step}</code>" in page for step in (1, 2, 11, 19, 20)] == [True, False, True, False, True]
    assert "Half-way, at step 11" in page


def test_what_a_model_wrote_stays_text(make_run: MakeRun) -> None:
    folder = make_run()
    hostile = '</svg><script>alert("x")</script><img src=x onerror=alert(1)>'
    record = tree(
        branch(0, None, 0, [hostile, "\x1b", "\n", " "], opened=hostile, answer=hostile), prompt=hostile, answer=hostile, label=hostile, task_id=hostile
    )
    (folder / "trees.jsonl").write_text(json.dumps(record) + "\n")
    page = write_report(folder).read_text()
    assert page.count("<script") == 2
    assert "<img" not in page
    assert "␛</text>" in page
    assert "↵</text>" in page
    assert "␣</text>" in page


def test_lines_that_are_no_trees_are_counted(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "trees.jsonl").write_text(json.dumps(SMALL) + '\n{"step": 2}\n{"branches": []}\n{')
    page = write_report(folder).read_text()
    assert "3 lines of the run" in page
    assert "Trees of attempts" in page


def test_a_run_without_trees_has_no_such_section(make_run: MakeRun) -> None:
    assert "Trees of attempts" not in write_report(make_run()).read_text()
