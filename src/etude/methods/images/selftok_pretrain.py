"""What Selftok begins with: pictures as tokens in the order of diffusion, and a language model that writes them (arXiv:2505.07538).

Three things are learnt one after the other. A tokenizer (`etude.models.ordered_tokens`): an encoder says a picture in a few tokens, and a flow decoder, which is shown fewer
of them the nearer it is to the picture, makes their order the order in which diffusion decides. A renderer, which draws from tokens in one step. And a language model,
which reads a caption and writes the tokens, the first ones first.

`--code` puts something else in the tokenizer's place: `flowmo`, the same without the schedule, so that the order means nothing; or `spatial`, one token for each place of a
4 x 4 grid. What it leaves, RUN/model, is an ordinary Hugging Face folder, for `etude train selftok` or any other method.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor, nn

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, NonNegative, Share
from etude.errors import InputError
from etude.evals.measures import Final
from etude.evals.token_order import reconstruction_by_rate, token_metrics
from etude.images.sources import Source, open_source
from etude.ledger import FORWARD, FORWARD_BACKWARD
from etude.method import State, register
from etude.models.language import WRITE_PICTURES
from etude.models.ordered_tokens import OrderedShape, OrderedTokenizer
from etude.models.picture_code import PictureCode
from etude.models.picture_language import PictureWriter
from etude.models.picture_learner import PictureLearner, PictureLearnerConfig
from etude.models.spatial_tokens import SpatialShape, SpatialTokenizer
from etude.picturing import SCRATCH, PictureConfig, PictureMethod
from etude.types import Metrics

ENCODED_AT_ONCE = 512


@dataclass
class SelfTokPretrainConfig(PictureConfig):
    """Options of Selftok's pretraining."""

    code: Literal["selftok", "flowmo", "spatial"] = "selftok"
    """Tokens of a new tokenizer: in the order of diffusion; without an order; or of places."""
    codes: AtLeastOne = 64
    """Codes of a new tokenizer."""
    segments: tuple[AtLeastOne, ...] = (1, 2, 3, 5, 5)
    """Tokens of a picture, by the span of time, of as many equal ones, in which the decoder ceases to see them; noise first."""
    code_width: AtLeastOne = 48
    """Width of a new tokenizer's layers."""
    tokenizer_tasks: str = ""
    """Pictures that the tokenizer learns from (empty: those of `tasks`)."""
    tokenizer_steps: Count = 3000
    """Steps in which the tokenizer learns, where the model is `scratch`."""
    tokenizer_lr: Annotated[float, Gt(0)] = 2e-3
    """Learning rate of the tokenizer."""
    commitment: NonNegative = 1.0
    """Weight of how far vectors lie from their codes."""
    diversity: NonNegative = 0.1
    """Weight of codes being used alike at every position, as long as they are not. The paper's 1 would here outweigh the pictures."""
    renderer_steps: Count = 500
    """Steps after those in which the renderer learns; a spatial tokenizer needs none."""
    renderer_lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate of the renderer."""
    pool: AtLeastOne = 16384
    """Pictures that are drawn once and learnt from; of a finite source some come several times."""
    language_model: str = ""
    """A causal language model that learns to write pictures: its name or folder (empty: a new one, of the sizes below)."""
    width: AtLeastOne = 64
    """Width of a new language model: a multiple of 4."""
    layers: AtLeastOne = 4
    """Layers of a new language model."""
    dropped: Share = 0.1
    """Captions that are left out, so that the model also writes pictures without."""
    learner: PictureLearnerConfig = field(default_factory=lambda: PictureLearnerConfig(lr=2e-3, schedule="cosine", average=0.0))


@dataclass
class Phase:
    """A part of the run: its steps, and the learner of what learns in it."""

    name: str
    steps: int
    learner: PictureLearner


@register(
    slug="selftok-pretrain",
    name="Selftok pretraining",
    family="images",
    paper="2505.07538",
    title="Selftok: Discrete Visual Tokens of Autoregression, by Diffusion, and for Reasoning",
    summary="pictures as tokens in the order of diffusion, and a language model that writes them",
    config=SelfTokPretrainConfig,
    signal="demonstrations",
    rollouts="none",
    claim=Claim(
        statement="Tokens in the order of diffusion come one out of the other: given those before it, each is less open than the last, also along every part of a "
        "sequence that is shuffled in strides. Tokens of places, and those of a decoder that always sees all of them, are not so.",
        expectation="Small language models find Selftok's tokens ever less open: Spearman's correlation of place and entropy is below -0.6, in order and within strides of "
        "two; for tokens of places and for those without a schedule it is higher.",
        arms=(
            Arm("selftok", "selftok-pretrain", {"tokenizer": "tiny-selftok"}),
            Arm("flowmo", "selftok-pretrain", {"tokenizer": "tiny-flowmo"}),
            Arm("spatial", "selftok-pretrain", {"tokenizer": "tiny-spatial"}),
        ),
        experiment="etude.experiments.token_order:token_order",
        budget="300-steps",
        tests=(
            Comparison("in order", "selftok", None, Final("correlation"), better="lower", margin=0.6),
            Comparison("within strides of two", "selftok", None, Final("correlation_2"), better="lower", margin=0.6),
            Comparison("against no schedule", "selftok", "flowmo", Final("correlation"), better="lower", role="ablation"),
            Comparison("against places", "selftok", "spatial", Final("correlation"), better="lower", role="ablation"),
            Comparison("against no schedule, within strides of two", "selftok", "flowmo", Final("correlation_2"), better="lower", role="ablation"),
            Comparison("against places, within strides of two", "selftok", "spatial", Final("correlation_2"), better="lower", role="ablation"),
        ),
        preconditions=(
            Precondition(
                "tokens are open", "selftok", Final("entropy"), at_least=0.5, otherwise="the tokens say hardly anything, so that their order means nothing"
            ),
        ),
        tried="Seed 0, tokens of Selftok alone, language models of 600 steps on 8,192 pictures; in order, and within strides of two. Tokenizers of 1,000 steps (150 steps "
        "of language models on 4,096 pictures): -0.33 and -0.01. Of 3,000 steps: -0.52 and -0.06, the first tokens saying least (2.3 of 4.2 nats), since late ones, which "
        "the decoder always sees, say everything. With diversity asked for at each position, at the paper's weight of 1: -0.46 and -0.50, but pictures lose a fifth of "
        "their alignment; at 0.1: -0.24 and -0.15, early tokens repeating each other. With errors weighed as the velocity's besides: -0.32 and -0.27, from 4.2 nats for "
        "the first to 1.5 for the last five, pictures as good as without. So shipped.",
        seeds=reported_seeds(5),
        plot="correlation",
        quick={"pictures": 256, "steps": 2},
    ),
)
class SelfTokPretrain(PictureMethod[PictureWriter]):
    """A tokenizer, its renderer and a language model, each in steps of its own."""

    defaults: ClassVar[dict[str, Any]] = {"model": SCRATCH, "tasks": "pictures", "steps": 4500, "evaluate_every": 200, "checkpoint_every": 200}
    spends: ClassVar[frozenset[str] | None] = frozenset({"forwards"})
    config: SelfTokPretrainConfig

    def load(self, name: str, source: Source) -> PictureWriter:
        config = self.config
        known = None if name == SCRATCH else PictureWriter.load(self.shipped(name, WRITE_PICTURES))
        of_code = open_source(config.tokenizer_tasks) if config.tokenizer_tasks and known is None else source
        # Of the run and not of the step, so that a resumed one has the same pictures.
        self.pool = source.batch(config.pool, np.random.default_rng(self.run.stream(0, "pool")))
        self.code_pool = (
            self.pool[0] if of_code is source else of_code.batch(config.pool, np.random.default_rng(self.run.stream(0, "pool of the tokenizer")))[0]
        )
        if known is not None:
            return known
        if config.language_model:
            return PictureWriter.upon(new_code(config), config.language_model)
        captions = [source.words(row) for row in self.pool[1].tolist()]
        return PictureWriter.new(new_code(config), captions, width=config.width, layers=config.layers)

    def setup(self) -> None:
        super().setup()
        config, scratch = self.config, self.inputs.model == SCRATCH
        code = self.model.code
        of_tokenizer = PictureLearnerConfig(lr=config.tokenizer_lr, schedule="cosine", warmup_steps=min(50, config.tokenizer_steps), average=0.0)
        of_renderer = PictureLearnerConfig(lr=config.renderer_lr, schedule="cosine", average=0.0)
        rendering = renderer_of(code)
        drawing = {f"code.{n}" for n, p in code.named_parameters() if rendering is not None and any(p is q for q in rendering.parameters())}
        learnt = {
            "tokenizer": {f"code.{n}" for n, _ in code.named_parameters()} - drawing,
            "renderer": drawing,
            "language": {f"model.{n}" for n, _ in self.model.model.named_parameters()},
        }
        first, second = (config.tokenizer_steps, config.renderer_steps if drawing else 0) if scratch else (0, 0)
        steps = self.run.config.steps
        if 0 < steps <= first + second:
            raise InputError(
                f"--steps is {steps}, and tokenizer and renderer learn for {first + second}; expected more, for what is left is the language model's"
            )
        of_phases = (("tokenizer", first, of_tokenizer), ("renderer", second, of_renderer), ("language", steps - first - second, config.learner))
        self.phases = [Phase(name, count, self.learner_of(learnt[name], own, count)) for name, count, own in of_phases if learnt[name]]
        self.model.requires_grad_(True)
        self.tokens: Tensor | None = None

    def learner_of(self, names: set[str], config: PictureLearnerConfig, steps: int) -> PictureLearner:
        """A learner of some of the weights."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in names)
        return PictureLearner(self.model, config, total_steps=max(1, steps))

    def phase(self) -> tuple[Phase, int]:
        """What learns in this step, and the step's number in it, from 0."""
        step = self.steps_before
        for phase in self.phases[:-1]:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        return self.phases[-1], step

    def practise(self) -> Metrics:
        phase, step = self.phase()
        code, batch, ledger = self.model.code, self.config.batch, self.run.ledger
        random, generator = self.random("rows"), self.generator("choices")
        if phase.name == "language":
            rows = torch.from_numpy(random.integers(len(self.pool[0]), size=batch))
            texts = [self.source.words(caption) for caption in self.pool[1][rows].tolist()]
            dropped = (torch.rand(batch, generator=generator) < self.config.dropped).tolist()
            asked = ["" if drop else text for text, drop in zip(texts, dropped, strict=True)]
            losses = self.model.token_losses(asked, self.tokens_of_pool()[rows])
            ledger.forward_equivalents += FORWARD_BACKWARD * (batch * code.count + sum(map(len, self.model.prompts(asked))))
            return phase.learner.update(losses.mean(), step)
        pictures = self.code_pool[torch.from_numpy(random.integers(len(self.code_pool), size=batch))]
        if phase.name == "renderer":
            assert isinstance(code, OrderedTokenizer)
            if step == 0:
                code.begin_rendering()
            ledger.forward_equivalents += (FORWARD + FORWARD_BACKWARD) * batch * code.tokens
            return phase.learner.update(code.rendering_loss(pictures), step)
        found = code.loss(pictures, generator)
        ledger.forward_equivalents += 2 * FORWARD_BACKWARD * batch * code.tokens
        total = found.total(commitment=self.config.commitment, diversity=self.config.diversity)
        return phase.learner.update(total, step) | {
            "loss/reconstruction": float(found.reconstruction.detach()),
            "loss/commitment": float(found.quantised.commitment.detach()),
            "codes/perplexity": found.quantised.perplexity,
        }

    def tokens_of_pool(self) -> Tensor:
        """The tokens of all pictures that captions are written for. The tokenizer has learnt what it will by now, so that they are looked up once, as captions are."""
        if self.tokens is None:
            self.model.prompts(["", *(self.source.words(caption) for caption in self.pool[1].tolist())])
            with torch.no_grad():
                self.tokens = torch.cat([self.model.code.encode(part) for part in self.pool[0].split(ENCODED_AT_ONCE)])
        return self.tokens

    @torch.no_grad()
    def evaluate(self) -> Metrics:
        """Besides how drawings are: how much of pictures the tokens keep, all of them and the first or last few; how many codes are used; and, by position, how surprising the
        language model finds the tokens of held-out pictures."""
        self.bring_shown_up_to_date()
        found = self.measured()
        held_out, captions = self.source.held_out(self.config.eval_pictures)
        tokens = self.shown.code.encode(held_out)
        losses = self.shown.token_losses([self.source.words(row) for row in captions.tolist()], tokens)
        return (
            found | token_metrics(self.shown.code, self.source, held_out, captions, tokens, losses) | reconstruction_by_rate(self.shown.code, held_out, tokens)
        )

    def draw(self, model: PictureWriter, captions: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            return model.code.render(model.sample([self.source.words(row) for row in captions.tolist()], generator))

    def state(self) -> State:
        state = State()
        for phase in self.phases:
            plain, tensors = phase.learner.state()
            state.plain[phase.name] = plain
            state.tensors |= {f"{phase.name}.{name}": value for name, value in tensors.items()}
        state.tensors |= {f"buffer.{name}": value.clone() for name, value in self.model.code.named_buffers()}
        return state

    def load_state(self, state: State) -> None:
        for phase in self.phases:
            own = state.part_of(phase.name)
            phase.learner.load_state(state.plain[phase.name], own)
        for name, buffer in self.model.code.named_buffers():
            key = f"buffer.{name}"
            if key in state.tensors:
                buffer.copy_(state.tensors[key])
        self.tokens = None

    def export(self, folder: Any) -> None:
        self.bring_shown_up_to_date()
        self.shown.save(Path(folder))

    def bring_shown_up_to_date(self) -> None:
        for phase in self.phases:
            phase.learner.average_into(self.shown)
        # The codebook follows what it stands for, and is no weight.
        for name, buffer in self.shown.code.named_buffers():
            buffer.copy_(self.model.code.get_buffer(name))


def new_code(config: SelfTokPretrainConfig) -> PictureCode:
    """The tokenizer that the options describe, which has learnt nothing."""
    if config.code == "spatial":
        return SpatialTokenizer(SpatialShape(codes=config.codes, hidden=config.code_width))
    return OrderedTokenizer(OrderedShape(codes=config.codes, width=config.code_width, segments=config.segments, ordered=config.code == "selftok"))


def renderer_of(code: PictureCode) -> nn.Module | None:
    """The part of a tokenizer that learns after the rest; None where it has none."""
    return code.renderer if isinstance(code, OrderedTokenizer) else None
