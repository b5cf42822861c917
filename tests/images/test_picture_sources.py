"""Sources of captioned pictures: the world, digits, a folder; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from etude.errors import InputError
from etude.images.captions import VOCABULARY
from etude.images.sources import Folder, Source, World, open_source


def batch(source: Source, count: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return source.batch(count, np.random.default_rng(seed))


def folder_of(path: Path, count: int = 10) -> Path:
    for i in range(count):
        Image.new("RGB", (40, 20), (255, 25 * i, 0)).save(path / f"{i}.png")
        (path / f"{i}.txt").write_text(f"Red {'and green' if i > 4 else 'alone'}\n")
    return path


def test_the_world_is_drawn_anew_and_held_out_pictures_stay_the_same() -> None:
    world = open_source("pictures:law=biased")
    (first, captions), (second, _) = batch(world), batch(world, seed=1)
    assert first.shape == (8, 3, 16, 16)
    assert not torch.equal(first, second)
    assert torch.equal(batch(world)[0], first)
    assert all(torch.equal(a, b) for a, b in zip(world.held_out(4), open_source("pictures").held_out(4), strict=True))
    judged = world.alignment(first, captions)
    assert judged is not None
    assert judged.soft.mean() > 0.95
    opinion = world.second_opinion(first, captions)
    assert opinion is not None
    assert opinion.mean() > 0.8
    assert world.features(first).shape == (8, 64)


def test_captions_without_places_are_sorted_and_judged_so() -> None:
    world = World(places=False)
    pictures, captions = batch(world, 64)
    assert (captions.diff(dim=1) <= 0).all()
    judged = world.alignment(pictures, captions)
    assert judged.strict.mean() > 0.9
    assert world.second_opinion(pictures, captions) is None
    assert not world.caption.placed
    assert world.words([21, 1, 0, 0]) == "blue cross, red circle"


def test_digits_are_split_and_judged_by_their_neighbours() -> None:
    digits = open_source("digits")
    pictures, captions = digits.held_out(10_000)
    assert pictures.shape == (359, 3, 16, 16)
    assert (pictures.min().item(), pictures.max().item()) == (-1, 1)
    judged = digits.alignment(pictures, captions)
    assert judged is not None
    assert judged.soft.mean() > 0.95
    assert digits.words(captions[0].tolist()) == str(captions[0].item() - VOCABULARY)
    assert digits.caption.vocabulary == VOCABULARY + 10


def test_a_folder_is_read_cut_and_captioned(tmp_path: Path) -> None:
    source = open_source(f"images:{folder_of(tmp_path)}")
    pictures, captions = batch(source, 40)
    held, _ = source.held_out(10)
    assert (pictures.shape[1:], len(held), captions.shape[1]) == ((3, 16, 16), 2, 3)
    assert (pictures[:, 0] == 1).all()
    assert {source.words(row) for row in captions.tolist()} == {"red alone", "red and green"}
    assert source.alignment(pictures, captions) is None
    assert source.features(pictures).shape == (40, 192)
    metadata = [json.dumps({"file_name": f"{i}.png", "text": "one"}) for i in range(10)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(metadata))
    assert Folder(tmp_path).caption.words == 1


def test_what_holds_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names no pictures\. Did you mean pictures"):
        open_source("picture")
    with pytest.raises(InputError, match="no law of captions 'odd'"):
        open_source("pictures:law=odd")
    with pytest.raises(InputError, match="there is no folder"):
        open_source(f"images:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="has 0 pictures"):
        open_source(f"images:{tmp_path}")
    folder_of(tmp_path, 3)
    with pytest.raises(InputError, match="has 3 pictures; expected at least 10"):
        open_source(f"images:{tmp_path}")
    (tmp_path / "1.txt").unlink()
    with pytest.raises(InputError, match=r"1\.png has no caption; expected 1\.txt beside it"):
        open_source(f"images:{tmp_path}")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png"}')
    with pytest.raises(InputError, match=r"metadata\.jsonl, line 1: KeyError"):
        open_source(f"images:{tmp_path}")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.txt", "text": "x"}')
    with pytest.raises(InputError, match=r"0\.txt can't be read as a picture"):
        open_source(f"images:{tmp_path}")
