"""What methods share whose policy draws pictures: a source of captioned pictures, a learner, and how drawings are measured and shown.

    pictures -> (drawings -> rewards -> credit) -> update

A method says which model it trains, what one update does, and how its model draws. `--tasks` names the pictures: `pictures` (a drawn world of coloured shapes), `digits`
(of scikit-learn), or `images:FOLDER`. Budgets can be counted in `forwards`: tokens that went through the network, times 3 with the way back.
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from etude.config import AtLeastOne, TrainConfig
from etude.errors import InputError, nearest
from etude.evals.drawn import picture_metrics
from etude.images.features import WEIGHTS
from etude.images.grid import require_pillow, save_grid
from etude.images.sources import Source, open_source
from etude.method import Method, State
from etude.models.caption_embedding import CaptionShape
from etude.models.picture_learner import PictureLearner, PictureLearnerConfig
from etude.run import DRAWINGS, Run
from etude.types import Metrics

ASSETS = WEIGHTS.parent
SCRATCH = "scratch"
"""In place of a model: begin with random weights."""
SHOWN = 8
"""Captions whose drawings are shown, and drawings of each."""

M = TypeVar("M", bound=nn.Module)


@dataclass
class PictureConfig:
    """What every method that draws can be told; methods add their own fields."""

    batch: AtLeastOne = 64
    """Pictures, or captions to draw for, in a step."""
    eval_pictures: AtLeastOne = 512
    """Pictures drawn at an evaluation, and as many real ones to compare with."""
    eval_variants: AtLeastOne = 4
    """Pictures of each caption among them."""
    learner: PictureLearnerConfig = field(default_factory=PictureLearnerConfig)


class PictureMethod(Method, Generic[M]):
    """A method that trains a model to draw. Overrides: `load` a model, `practise` once, and `draw`."""

    score_key = "eval/closeness"
    defaults: ClassVar[Mapping[str, Any]] = {"model": SCRATCH, "tasks": "pictures"}
    memory_relief: ClassVar[str] = "lower --batch where it learns and --eval-pictures where it is measured"
    spends: ClassVar[frozenset[str] | None] = frozenset({"rollouts", "forwards"})
    config: PictureConfig
    model: M

    def __init__(self, config: TrainConfig[Any], run: Run) -> None:
        super().__init__(config.method, run)
        self.inputs = config.inputs

    # What a method says

    @abstractmethod
    def load(self, name: str, source: Source) -> M:
        """The model to begin with: SCRATCH, the name of a shipped one, or a folder."""

    @abstractmethod
    def practise(self) -> Metrics:
        """One step: gather, judge, update. Counts what it spends."""

    @abstractmethod
    def draw(self, model: M, captions: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures [B, 3, S, S] for captions [B, W], as an evaluation draws them."""

    # The common parts

    def setup(self) -> None:
        require_pillow()
        self.source = open_source(self.inputs.tasks)
        torch.manual_seed(self.run.stream("initial weights") % 2**63)
        self.model = self.load(self.inputs.model, self.source)
        self.shown = copy.deepcopy(self.model).requires_grad_(False)
        self.learner = PictureLearner(self.model, self.config.learner, total_steps=max(1, self.run.config.steps))
        self.real, captions = self.source.held_out(self.config.eval_pictures)
        if len(self.real) < 2:
            raise InputError(f"{self.source.name} has {len(self.real)} held-out pictures; expected at least 2 to compare with")
        count = max(1, self.config.eval_pictures // self.config.eval_variants)
        self.asked = captions[:count].repeat_interleave(self.config.eval_variants, 0)

    def random(self, *parts: int | str) -> np.random.Generator:
        """NumPy's random numbers for what the parts name, in this step."""
        return np.random.default_rng(self.run.stream(self.run.step, *parts))

    def generator(self, *parts: int | str) -> torch.Generator:
        """Torch's random numbers for what the parts name, in this step."""
        return torch.Generator().manual_seed(self.run.stream(self.run.step, *parts) % 2**63)

    def step(self) -> Metrics:
        return self.practise()

    @property
    def steps_before(self) -> int:
        """Steps of the loop before this one."""
        return self.run.step - 1

    def evaluate(self) -> Metrics:
        self.learner.average_into(self.shown)
        return self.measured()

    def measured(self) -> Metrics:
        """How drawings of `shown` are. Keeps a sheet of them."""
        pictures = self.draw(self.shown, self.asked, torch.Generator().manual_seed(0)).clamp(-1, 1)
        self.show(pictures)
        return picture_metrics(self.source, pictures, self.asked, self.real, variants=self.config.eval_variants)

    def shows_step(self) -> bool:
        """Whether this step is one to keep something of to look at: the first, and those before an evaluation."""
        every = self.run.config.evaluate_every
        return self.run.step == 1 or (every > 0 and self.run.step % every == 0)

    def show(self, pictures: Tensor) -> None:
        """Keep a sheet of drawings of this step: a row a caption."""
        rows = pictures.unflatten(0, (-1, self.config.eval_variants))[:SHOWN]
        folder = self.run.folder / DRAWINGS
        folder.mkdir(exist_ok=True)
        save_grid(rows, folder / f"step-{self.run.step:06d}.png")
        captions = [self.source.words(row) for row in self.asked[:: self.config.eval_variants][:SHOWN].tolist()]
        (folder / "captions.json").write_text(json.dumps(captions, ensure_ascii=False, indent=1) + "\n")

    def state(self) -> State:
        plain, tensors = self.learner.state()
        return State(plain={"learner": plain}, tensors=tensors)

    def load_state(self, state: State) -> None:
        self.learner.load_state(state.plain["learner"], state.tensors)

    def export(self, folder: Any) -> None:
        self.learner.average_into(self.shown)
        saved: Any = self.shown
        saved.save(Path(folder))

    def require_captions(self, name: str, caption: CaptionShape, source: Source) -> None:
        """Refuse a model that was trained on other captions. Raises InputError."""
        if caption != source.caption:
            raise InputError(
                f"--model {name} reads other captions ({caption}) than {source.name} has ({source.caption}); begin from {SCRATCH}, or train one on these first"
            )

    def shipped(self, name: str, known: Mapping[str, str]) -> Path:
        """The folder of a model: of one that is shipped (name to folder), or the user's own. Raises InputError where there is neither."""
        if name in known:
            return ASSETS / known[name]
        path = Path(name).expanduser()
        if path.is_dir():
            return path
        raise InputError(
            f"there is no model {name!r} that draws.{nearest(name, [*known, SCRATCH])} Expected {', '.join([*known, SCRATCH])}, or a folder that a run has exported"
        )
