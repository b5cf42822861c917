"""Self-E as a method: jumps grow over the run, what is judged costs, and a run without both is flow matching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import etude
from etude.methods.images.self_e import DISTILLED, FLOW_MATCHING
from etude.run import Run

SMALL: dict[str, Any] = {
    "batch": 16,
    "eval_pictures": 8,
    "eval_variants": 2,
    "steps_measured": (),
    "steps": 4,
    "evaluate_every": 0,
    "quiet": True,
    "threads": 1,
}


def steps(out: Path, **settings: Any) -> list[dict[str, Any]]:
    etude.train("self-e", out=out, **{**SMALL, **settings})
    return [line for line in Run.open(out).metrics() if "signal/judged" in line]


def test_jumps_grow_and_are_counted(tmp_path: Path) -> None:
    found = steps(tmp_path / "run", growing=0.5, dropped=0.0, local=0.0)
    assert found[0]["signal/judged"] == 0
    assert [line["signal/judged"] for line in found[2:]] == [1, 1]
    forwards = [line["ledger"]["forward_equivalents"] for line in found]
    # Of 20 tokens a picture: 3 with the way back, and 2 for judging.
    assert forwards[0] == 20 * 16 * 3
    assert forwards[3] - forwards[2] == 20 * 16 * 5


def test_without_jumps_and_judgement_it_is_flow_matching(tmp_path: Path) -> None:
    found = steps(tmp_path / "run", **FLOW_MATCHING)
    assert {(line["signal/judged"], line["signal/judgement"]) for line in found} == {(0, 0)}


def test_distilling_is_flow_matching_until_there_is_a_teacher(tmp_path: Path) -> None:
    settings = {**SMALL, **DISTILLED, "teacher_from": 0.5, "dropped": 0.0, "local": 0.0, "teacher_steps": 3, "checkpoint_every": 1}
    etude.train("self-e", out=tmp_path / "run", **settings)
    found = [line for line in Run.open(tmp_path / "run").metrics() if "signal/taught" in line]
    assert [line["signal/taught"] for line in found] == [0, 0, 1, 1]
    forwards = [line["ledger"]["forward_equivalents"] for line in found]
    assert forwards[1] == 2 * 20 * 16 * 3
    assert forwards[3] - forwards[2] == 20 * 16 * (3 + 3)


def test_a_teacher_and_the_models_own_judgement_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(etude.InputError, match=r"--teacher-from is 0.5 and --pull 1.0: .* expected --pull 0"):
        etude.train("self-e", out=tmp_path / "run", **{**SMALL, "teacher_from": 0.5})


def test_a_resumed_run_keeps_its_teacher(tmp_path: Path) -> None:
    settings = {**SMALL, **DISTILLED, "teacher_from": 0.25, "checkpoint_every": 1}
    etude.train("self-e", out=tmp_path / "whole", **settings)
    etude.train("self-e", out=tmp_path / "parts", **settings, budget="3-steps")
    etude.train(resume=tmp_path / "parts", budget="4-steps")
    losses = [[line["loss/fit"] for line in Run.open(tmp_path / name).metrics() if "loss/fit" in line] for name in ("whole", "parts")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_it_learns_to_draw_digits(tmp_path: Path) -> None:
    summary = etude.train(
        "self-e", out=tmp_path / "run", **{**SMALL, "tasks": "digits", "steps": 25, "lr": 3e-3, "warmup_steps": 2, "batch": 32, "eval_pictures": 64}
    )
    assert summary.after["eval/distance"] < 0.7 * summary.before["eval/distance"]
    with pytest.raises(etude.InputError, match="reads other captions"):
        etude.train("self-e", out=tmp_path / "other", **{**SMALL, "model": tmp_path / "run" / "model"})
