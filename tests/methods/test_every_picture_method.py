"""What every method that draws has to do: train, keep finite accounts and sheets of drawings, resume exactly, come back from its file, export what it can load."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import killed_in_step
from PIL import Image
from safetensors.torch import load_file

import etude
from etude.cards import listings
from etude.errors import InputError, MissingExtra
from etude.method import get_method
from etude.picturing import PictureMethod
from etude.run import Run, without_time
from etude.settings import build_config
from etude.settings_file import saved_config

METHODS = [listing.card.slug for listing in listings() if listing.card.family == "images" and issubclass(get_method(listing.card.slug), PictureMethod)]
"""The method of this family that updates a language model is looked at with those that do."""
SMALL: dict[str, Any] = {
    "batch": 2,
    "export": "last",
    "eval_pictures": 8,
    "eval_variants": 2,
    "steps": 3,
    "checkpoint_every": 1,
    "evaluate_every": 2,
    "quiet": True,
    "threads": 1,
    "lr": 1e-3,
}
OWN: dict[str, dict[str, Any]] = {
    "branchgrpo": {"denoising_steps": 4, "splits": (0, 1)},
    "sar": {"student_weight": 0.5, "stagger": "all"},
    "selftok-pretrain": {"tokenizer_steps": 1, "renderer_steps": 1, "pool": 64, "code_width": 16, "width": 16, "layers": 1},
    "self-e": {"steps_measured": (1,), "longest": 1.0, "growing": 0.0, "fake_from": 0.5, "local": 0.2},
}


@dataclass
class Whole:
    slug: str
    folder: Path
    settings: dict[str, Any]
    summary: etude.Summary


@pytest.fixture(scope="module", params=METHODS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run of each method that nothing disturbed."""
    folder, settings = tmp_path_factory.mktemp(request.param), {**SMALL, **OWN.get(request.param, {})}
    return Whole(request.param, folder, settings, etude.train(request.param, out=folder / "run", **settings))


def test_a_method_trains_accounts_shows_and_exports(whole: Whole) -> None:
    run = whole.folder / "run"
    assert (whole.summary.status, whole.summary.step) == ("finished", 3)
    lines = Run.open(run).metrics()
    assert not [name for line in lines for name, value in line.items() if value is None]
    spent = [0.0, *(line["ledger"]["forward_equivalents"] for line in lines if "time/step" in line)]
    assert len(spent) == 4
    assert all(b > a for a, b in pairwise(spent))
    assert {"eval/distance", "eval/kernel_distance", "eval/precision", "eval/recall", "eval/diversity"} <= whole.summary.after.keys()
    assert saved_config(run) == (whole.slug, build_config(whole.slug, out=run, **whole.settings))
    with Image.open(run / "drawings" / "step-000002.png") as sheet:
        assert sheet.size == (2 * 66 - 2, 4 * 66 - 2)
    assert len(json.loads((run / "drawings" / "captions.json").read_text())) == 4
    again = etude.train(whole.slug, out=whole.folder / "from-exported", model=run / "model", **{**whole.settings, "steps": 0})
    assert again.after["eval/distance"] == pytest.approx(whole.summary.after["eval/distance"], rel=1e-4)


def test_a_method_that_was_stopped_goes_on_as_if_it_had_not_been(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_in_step(whole.slug, 3, monkeypatch):
        etude.train(whole.slug, out=whole.folder / "parted", **whole.settings)
    etude.train(resume=whole.folder / "parted")
    undisturbed, parted = whole.folder / "run", whole.folder / "parted"
    assert [without_time(line) for line in Run.open(parted).metrics()] == [without_time(line) for line in Run.open(undisturbed).metrics()]
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (undisturbed, parted)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("slug", METHODS)
def test_what_cannot_be_drawn_with_is_refused(slug: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model 'tiny-flo' that draws"):
        etude.train(slug, out=tmp_path / "a", model="tiny-flo", **SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no"):
        etude.train(slug, out=tmp_path / "b", model=tmp_path / "empty", **SMALL)
    with pytest.raises(InputError, match="names no pictures"):
        etude.train(slug, out=tmp_path / "c", tasks="arithmetic", **SMALL)


@pytest.mark.parametrize("slug", METHODS)
def test_what_could_not_be_shown_is_not_begun(slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "PIL" else find(name, *rest))
    with pytest.raises(MissingExtra, match=r"etude\[images\]"):
        etude.train(slug, out=tmp_path / "run", **SMALL)
