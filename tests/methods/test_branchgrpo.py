"""BranchGRPO: which edges are trained, what a step costs, and that rewards move the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import etude
from etude.errors import InputError
from etude.run import Run
from etude.viewer.drawings import picture_trees

SMALL: dict[str, Any] = {"batch": 2, "eval_pictures": 8, "eval_variants": 2, "denoising_steps": 4, "splits": (0, 1), "steps": 1, "quiet": True, "threads": 1}


def metrics(out: Path, **settings: Any) -> dict[str, Any]:
    etude.train("branchgrpo", out=out, **{**SMALL, **settings})
    return next(line for line in Run.open(out).metrics() if line["step"] == 1 and "reward/mean" in line)


def test_a_tree_costs_less_than_its_pictures_one_by_one(tmp_path: Path) -> None:
    tree = metrics(tmp_path / "tree")
    # 1 + 2 + 4 + 4 passes for 4 pictures; of 2 + 4 + 4 + 4 edges the last 4 are not trained, twice over.
    assert tree["cost/passes_per_picture"] == 11 / 4
    assert (tree["ledger"]["rollouts"], tree["ledger"]["model_calls"]["policy"]) == (8, 22)
    assert tree["ledger"]["forward_equivalents"] == 20 * (22 + 3 * 2 * 10 * 2)
    apart = metrics(tmp_path / "apart", splits=(), walks=4, credit="leaf")
    assert apart["cost/passes_per_picture"] == 4
    assert apart["ledger"]["rollouts"] == 8
    assert apart["ledger"]["forward_equivalents"] == 20 * (32 + 3 * 2 * 12 * 2)


@pytest.mark.parametrize(
    ("settings", "edges"),
    [
        ({"skip_last": 0}, 14),
        ({"prune": "best"}, 2 + 4 + 2),
        ({"prune": "extremes"}, 2 + 4 + 2),
        # A window of one step that began with the last and has not moved; then one that stops at step 1.
        ({"prune": "window", "window": 1, "skip_last": 0, "window_stop": 1}, 10),
        ({"prune": "window", "window": 2, "skip_last": 0, "window_stop": 1}, 6),
        ({"hybrid": True, "window": 1, "window_stop": 3, "skip_last": 0}, 10),
    ],
)
def test_what_is_trained(settings: dict[str, Any], edges: int, tmp_path: Path) -> None:
    assert metrics(tmp_path / "run", **settings)["signal/trained_edges"] == edges / 14


def test_the_ratio_is_one_before_the_first_update_and_moves_after_it(tmp_path: Path) -> None:
    assert metrics(tmp_path / "once", epochs=1, lr=1e-2)["loss/ratio_distance"] == pytest.approx(0, abs=1e-5)
    twice = metrics(tmp_path / "twice", epochs=2, lr=1e-2, eta=0.9)
    assert twice["loss/ratio_distance"] > 0


def test_the_first_tree_is_kept_to_look_at(tmp_path: Path) -> None:
    metrics(tmp_path / "run")
    tree = picture_trees(tmp_path / "run" / "drawings")[0]
    assert (tree.step, tree.depths) == (1, [0, 1, 2, 4])
    assert [[node.rows for node in column] for column in tree.columns] == [[4], [2, 2], [1] * 4, [1] * 4]
    assert tree.columns[0][0].value == pytest.approx(sum(node.value for node in tree.columns[3]) / 4)
    assert tree.columns[1][1].value == pytest.approx(sum(node.value for node in tree.columns[3][2:]) / 2)
    page = (tmp_path / "run" / "report.html").read_text()
    assert tree.caption in page
    assert page.count("data:image/png;base64,") == 11 + 2


def test_micro_batches_change_no_number(tmp_path: Path) -> None:
    whole, parts = metrics(tmp_path / "whole", epochs=1), metrics(tmp_path / "parts", epochs=1, micro_batch=3)
    assert parts["loss/grad_norm"] == pytest.approx(whole["loss/grad_norm"], rel=1e-4)


def test_what_has_nothing_to_compare_or_to_learn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to compare it with"):
        metrics(tmp_path / "a", splits=())
    with pytest.raises(InputError, match="improves a model that draws already"):
        metrics(tmp_path / "b", model="scratch")
    with pytest.raises(InputError, match="step 9 is no step of a walk of 4"):
        metrics(tmp_path / "c", splits=(9,))
    with pytest.raises(InputError, match="reads other captions"):
        metrics(tmp_path / "d", tasks="pictures:places=false")
