"""Where captioned pictures come from: the drawn world, handwritten digits, or a folder of one's own. All are 16 x 16 pixels of three colours from -1 to 1."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from etude.errors import InputError, MissingExtra, nearest
from etude.images.captions import VOCABULARY, Caption, Law, draw_captions, in_words, without_places
from etude.images.drawing import SIZE, draw
from etude.images.features import features_of, recognised, reference
from etude.images.judge import Alignment, alignment, alignment_anywhere
from etude.models.caption_embedding import CaptionShape
from etude.tasks.options import settings_in

HELD_OUT_SEED = 778
HELD_OUT_SHARE = 5
"""One picture in so many of a finite source is held out."""
LEAST = 10
MOST_WORDS = 16
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


class Source(ABC):
    """Captioned pictures to learn from, held-out ones to compare with, and, where somebody knows, whether a picture shows its caption."""

    name: str
    caption: CaptionShape

    @abstractmethod
    def batch(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pictures [B, 3, 16, 16] to learn from, with their captions [B, W]."""

    @abstractmethod
    def held_out(self, count: int) -> tuple[Tensor, Tensor]:
        """Real pictures [N, 3, 16, 16] that are never learnt from, with their captions [N, W]: always the same ones, as many as there are up to `count`."""

    @abstractmethod
    def features(self, pictures: Tensor) -> Tensor:
        """What pictures are compared in [B, D], float64."""

    @abstractmethod
    def words(self, caption: Sequence[int]) -> str:
        """A caption as text."""

    def alignment(self, pictures: Tensor, captions: Tensor) -> Alignment | None:
        """How well pictures fit their captions; None where nobody can tell."""
        return None

    def second_opinion(self, pictures: Tensor, captions: Tensor) -> Tensor | None:
        """The same from a judge that is never a reward [B]; None where there is none."""
        return None


class World(Source):
    """The drawn world. law: of the captions that are learnt from; held-out ones are uniform. places: whether captions say where things are."""

    def __init__(self, law: Law = "uniform", *, places: bool = True) -> None:
        draw_captions(0, law, np.random.default_rng(0))
        self.name = f"pictures ({law})"
        self.law: Law = law
        self.places = places
        self.caption = CaptionShape(placed=places)

    def batch(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        return self._drawn(draw_captions(count, self.law, random), random)

    def held_out(self, count: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng(HELD_OUT_SEED)
        return self._drawn(draw_captions(count, "uniform", random), random)

    def features(self, pictures: Tensor) -> Tensor:
        return reference().standardised(features_of(pictures))

    def words(self, caption: Sequence[int]) -> str:
        return in_words(caption, places=self.places)

    def alignment(self, pictures: Tensor, captions: Tensor) -> Alignment:
        return (alignment if self.places else alignment_anywhere)(pictures, captions)

    def second_opinion(self, pictures: Tensor, captions: Tensor) -> Tensor | None:
        return recognised(pictures, captions) if self.places else None

    def _drawn(self, captions: list[Caption], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        shown = captions if self.places else [without_places(caption) for caption in captions]
        return torch.from_numpy(draw(captions, random)), torch.tensor(shown).reshape(-1, self.caption.words)


class Pictures(Source):
    """A finite set of pictures [N, 3, 16, 16] with captions [N, W], a fixed fifth of which is held out. Pictures are compared as 8 x 8 pixels."""

    def __init__(self, name: str, pictures: Tensor, captions: Tensor, keys: Sequence[str], caption: CaptionShape) -> None:
        if len(pictures) < LEAST:
            raise InputError(f"{name} has {len(pictures)} pictures; expected at least {LEAST}, a fifth of which is held out")
        order = sorted(range(len(keys)), key=lambda i: hashlib.blake2b(keys[i].encode(), digest_size=8).digest())
        held = torch.tensor(order[: len(order) // HELD_OUT_SHARE])
        trained = torch.tensor(order[len(order) // HELD_OUT_SHARE :])
        self.name, self.caption = name, caption
        self._trained = (pictures[trained], captions[trained])
        self._held_out = (pictures[held], captions[held])

    def batch(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        pictures, captions = self._trained
        rows = torch.from_numpy(random.integers(len(pictures), size=count))
        return pictures[rows], captions[rows]

    def held_out(self, count: int) -> tuple[Tensor, Tensor]:
        pictures, captions = self._held_out
        return pictures[:count], captions[:count]

    def features(self, pictures: Tensor) -> Tensor:
        return F.avg_pool2d(pictures.double().cpu(), 2).flatten(1)


class Digits(Pictures):
    """The 1,797 handwritten digits of scikit-learn, white on black, captioned by their value. The judge is a nearest-neighbour classifier of those that are learnt from."""

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
            from sklearn.neighbors import KNeighborsClassifier
        except ImportError as error:
            raise MissingExtra("scikit-learn", "images", "drawing digits") from error
        loaded: Any = load_digits()
        grey = torch.from_numpy(loaded.images).float()[:, None] / 8 - 1
        pictures = F.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1).clamp(-1, 1).contiguous()
        captions = torch.from_numpy(loaded.target).long()[:, None] + VOCABULARY
        shape = CaptionShape(VOCABULARY + 10, 1, placed=False)
        super().__init__("digits", pictures, captions, [str(i) for i in range(len(pictures))], shape)
        seen, values = self._trained
        self._judge = KNeighborsClassifier(3).fit(self.features(seen).numpy(), values[:, 0].numpy())

    def words(self, caption: Sequence[int]) -> str:
        return str(caption[0] - VOCABULARY)

    def alignment(self, pictures: Tensor, captions: Tensor) -> Alignment:
        read = torch.from_numpy(self._judge.predict(self.features(pictures).numpy()))
        right = (read == captions[:, 0].cpu()).float()
        return Alignment(right, right)


class Folder(Pictures):
    """A folder of pictures with captions: `metadata.jsonl` with a file_name and a text in each line, or a NAME.txt beside each NAME.png. Needs Pillow (extra `images`).

    Pictures are cut to a square and made small. A caption is its first words, of those that occur in captions that are learnt from.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError as error:
            raise MissingExtra("pillow", "images", "reading a folder of pictures") from error
        captions = folder_captions(folder)
        small = []
        for file in captions:
            try:
                with Image.open(folder / file) as opened:
                    square = opened.convert("RGB")
                    side = min(square.size)
                    left, top = ((length - side) // 2 for length in square.size)
                    resized = square.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
            except (OSError, UnidentifiedImageError) as error:
                raise InputError(f"{folder / file} can't be read as a picture: {error}; expected {', '.join(ENDINGS)}") from error
            small.append(torch.from_numpy(np.asarray(resized, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1)
        texts = [text.lower().split()[:MOST_WORDS] for text in captions.values()]
        self._vocabulary = sorted({word for text in texts for word in text})
        numbers = {word: VOCABULARY + i for i, word in enumerate(self._vocabulary)}
        length = max((len(text) for text in texts), default=1) or 1
        rows = torch.tensor([[numbers[word] for word in text] + [0] * (length - len(text)) for text in texts], dtype=torch.long).reshape(-1, length)
        pictures = torch.stack(small) if small else torch.zeros(0, 3, SIZE, SIZE)
        super().__init__(str(folder), pictures, rows, list(captions), CaptionShape(VOCABULARY + len(numbers), length, placed=False))

    def words(self, caption: Sequence[int]) -> str:
        return " ".join(self._vocabulary[number - VOCABULARY] for number in caption if number >= VOCABULARY)


def folder_captions(folder: Path) -> dict[str, str]:
    """The caption of each picture in a folder, by file name. Raises InputError for a folder without captions, and for lines and files that do not fit."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected pictures with metadata.jsonl, or with a text file beside each")
    metadata = folder / "metadata.jsonl"
    if not metadata.exists():
        pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)
        for picture in pictures:
            if not picture.with_suffix(".txt").exists():
                raise InputError(
                    f"{picture} has no caption; expected {picture.with_suffix('.txt').name} beside it, or metadata.jsonl with a file_name and a text a line"
                )
        return {picture.name: picture.with_suffix(".txt").read_text().strip() for picture in pictures}
    captions: dict[str, str] = {}
    for number, line in enumerate(metadata.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            captions[str(row["file_name"])] = str(row["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f'{metadata}, line {number}: {error!r}; expected {{"file_name": "…", "text": "…"}}') from error
    return captions


def open_source(spec: str) -> Source:
    """The source that a specification names: `pictures`, `pictures:law=biased,places=false`, `digits`, or `images:FOLDER`. Raises InputError for anything else."""
    kind, _, rest = spec.partition(":")
    if kind == "pictures":
        known = {"law": "of the captions that are learnt from: uniform, biased or unseen", "places": "whether captions say where things are"}
        return World(**settings_in(rest, f"--tasks {spec}", known, example="pictures:law=biased"))
    if kind == "digits" and not rest:
        return Digits()
    if kind == "images" and rest:
        return Folder(Path(rest).expanduser())
    raise InputError(
        f"--tasks {spec} names no pictures.{nearest(kind, ('pictures', 'digits', 'images'))} Expected pictures (or pictures:law=biased,places=false), digits, or images:FOLDER"
    )
