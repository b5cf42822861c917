"""Crowds of taught models, at their smallest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import etude
from etude.errors import InputError
from etude.experiments.crowds import crowd_experiment, crowd_run, fresh_llama
from etude.models.language import LanguageModel

SMALL = {
    "warm_steps": 1,
    "warm_tasks_per_step": 8,
    "form_steps": 1,
    "fresh_steps": 2,
    "tasks_per_step": 2,
    "group_size": 4,
    "eval_tasks": 4,
    "eval_samples": 2,
    "lr": 3e-4,
}


def test_members_of_different_teachers_and_sizes_are_taught_and_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[tuple[str, str, int]] = []
    train = etude.train

    def watched(method, **settings):
        if method == "sft":
            taught.append((Path(settings["model"]).name, settings["tasks"], settings["steps"]))
        return train(method, **settings)

    monkeypatch.setattr(etude, "train", watched)
    settings = {**SMALL, "teachers": [0, 2, 2], "starts": ["tiny", "32x1", "32x1"], "mistakes": "shared", "wrong": 0.5}
    record = crowd_run(3, settings, "1-steps")
    assert taught == [
        ("tiny", "commands:words=4,teacher=-2", 1),
        ("tiny-formed", "commands:words=4,teacher=0,mistakes=shared,wrong=0.5", 1),
        ("32x1-fresh-3", "commands:words=4,teacher=-2", 2),
        ("32x1-formed", "commands:words=4,teacher=2,mistakes=shared,wrong=0.5", 5),
    ]
    assert {"eval/tiny-of-0/pass@1", "eval/32x1-of-2/pass@1", "eval/32x1-of-2-2/pass@1"} <= record.rows[-1].keys()
    assert record.ledger.rollouts == 3 * 2 * 4


def test_a_fresh_llama_has_the_size_that_was_asked_for_and_the_seeds_weights(tmp_path: Path) -> None:
    models = [LanguageModel.load(fresh_llama(tmp_path / str(i), width=32, layers=1, seed=seed), device="cpu") for i, seed in enumerate((5, 5, 6))]
    assert models[0].parameters < 30_000
    first, same, other = [torch.cat([p.flatten() for p in m.model.parameters()]) for m in models]
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    with pytest.raises(InputError, match="width 30"):
        fresh_llama(tmp_path / "x", width=30, layers=1, seed=0)


def test_a_crowd_has_a_start_for_every_teacher() -> None:
    with pytest.raises(InputError, match="one of each for every member"):
        crowd_run(0, {**SMALL, "teachers": [0, 1], "starts": ["tiny"]}, "1-steps")


def test_it_measures_before_and_after() -> None:
    settings = {**SMALL, "method": "rlccf", "teachers": [0, 1], "evaluate_every": 0}
    found = crowd_experiment(0, settings, "1-steps")
    halves = ("pass_rate", "vote", "plain_vote", "best", "label_accuracy", "same_mistakes")
    assert set(found) == {"least_gain", *halves, *(f"{name}_first" for name in halves)}
    assert all(0 <= found[name] <= 1 for name in found if name != "least_gain")
