"""Rounds of collecting and training: what a round starts from, trains on, and when the run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import etude
from etude.run import Run

SMALL: dict[str, Any] = {
    "tasks_per_round": 8,
    "group_size": 4,
    "tasks_per_step": 8,
    "steps_per_round": 2,
    "rounds": 2,
    "steps": 50,
    "eval_tasks": 4,
    "eval_samples": 1,
    "evaluate_every": 0,
    "checkpoint_every": 1,
    "keep_last": 9,
    "eval_kl": False,
    "quiet": True,
    "threads": 1,
}


def weights(run: Run, step: int) -> torch.Tensor:
    tensors = run.checkpoints.load(step).state().tensors
    return torch.cat([t.flatten() for name, t in sorted(tensors.items()) if name.startswith("weights.")])


def train(out: Path, **settings: Any) -> Run:
    etude.train("rest-em", out=out, **{**SMALL, **settings})
    return Run.open(out)


def test_a_round_is_collected_once_and_the_run_ends_with_the_last_one(tmp_path: Path) -> None:
    summary = etude.train("rest-em", out=tmp_path / "run", **SMALL)
    assert (summary.step, summary.reason) == (4, "all 2 rounds are done")
    steps = [line for line in Run.open(tmp_path / "run").metrics() if "time/step" in line]
    assert [line["round/number"] for line in steps] == [1, 1, 2, 2]
    assert ["round/examples" in line for line in steps] == [True, False, True, False]
    assert [line["ledger"]["rollouts"] for line in steps] == [32, 32, 64, 64]
    kept = steps[0]["round/corpus"]
    assert steps[0]["round/passes"] == pytest.approx(2 * min(8, kept) / kept)


def test_what_a_round_starts_from(tmp_path: Path) -> None:
    moved: dict[str, float] = {}
    for start in ("base", "newest", "going-on"):
        run = train(tmp_path / start, start_from=start, lr=1e-3, warmup_steps=0)
        begun, after_first, third = weights(run, 0), weights(run, 2), weights(run, 3)
        moved[start] = float((third - begun).norm() / (after_first - begun).norm())
        states = run.checkpoints.load(3).state().tensors
        counts = {int(t) for name, t in states.items() if name.startswith("learner.step.")}
        # Only an optimiser that goes on has more than the third step behind it.
        assert counts == {3 if start == "going-on" else 1}
    # One step from the base moves less than two did; the others go on from there.
    assert moved["base"] < 1 < min(moved["newest"], moved["going-on"])


def test_examples_of_earlier_rounds_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    corpus = {on: train(tmp_path / on, train_on=on).checkpoints.load(4).state().plain["round"]["corpus"] for on in ("newest", "all")}
    rounds = {on: {e["tags"]["origin"]["round"] for e in plain["examples"]} for on, plain in corpus.items()}
    assert rounds == {"newest": {2}, "all": {1, 2}}
    assert all(e["tags"]["origin"]["reward"] == 1 for e in corpus["all"]["examples"])


def test_a_round_without_an_example_is_said_and_changes_nothing(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="round 1 found no example to learn from in attempts at 8 tasks"):
        run = train(tmp_path / "run", keep_above=2.0, steps=2)
    assert torch.equal(weights(run, 0), weights(run, 2))
    assert [line["round/number"] for line in run.metrics() if "time/step" in line] == [1, 2]
