"""SAR as a method: what its second pass costs, and a model that is learnt from nothing, tokenizer first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import etude
from etude.models.picture_tokens import ScaleTokenizer
from etude.run import Run, without_time

SMALL: dict[str, Any] = {"batch": 4, "eval_pictures": 8, "eval_variants": 2, "steps": 2, "evaluate_every": 0, "quiet": True, "threads": 1}


@pytest.mark.parametrize(("settings", "tokens"), [({"student_weight": 0}, 89), ({"stagger": "last"}, 89 + 69), ({"stagger": "all"}, 2 * 89)])
def test_the_second_pass_is_counted(settings: dict[str, Any], tokens: int, tmp_path: Path) -> None:
    summary = etude.train("sar", out=tmp_path / "run", **SMALL, **settings)
    assert summary.ledger.forward_equivalents == 3 * tokens * 4 * 2
    assert {"eval/scale_1", "eval/scale_8", "eval/exposure_gap"} <= summary.after.keys()


def test_from_scratch_the_tokenizer_learns_first_and_comes_back(tmp_path: Path) -> None:
    settings = {**SMALL, "model": "scratch", "tokenizer_steps": 2, "steps": 4, "checkpoint_every": 1, "tasks": "digits"}
    etude.train("sar", out=tmp_path / "whole", **settings)
    lines = [line for line in Run.open(tmp_path / "whole").metrics() if "loss/total" in line]
    assert ["loss/teacher" in line for line in lines] == [False, False, True, True]
    etude.train("sar", out=tmp_path / "parted", **{**settings, "steps": 1})
    etude.train(resume=tmp_path / "parted", steps=4)
    parted = [without_time(line) for line in Run.open(tmp_path / "parted").metrics() if "loss/total" in line]
    for line, other in zip(lines, parted, strict=True):
        assert {k: v for k, v in without_time(line).items() if k != "ledger"} == {k: v for k, v in other.items() if k != "ledger"}
    first, second = (ScaleTokenizer.load(tmp_path / name / "model") for name in ("whole", "parted"))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
