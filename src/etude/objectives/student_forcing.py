"""Show a scale-wise model its own coarser scales in training (SAR, arXiv:2512.06421).

Teacher forcing predicts each scale from the real coarser ones; when a model draws, it reads its own. A second pass is told what the model itself predicted of the scale
before, a roll-out of one step for all scales at once, and learns to predict of the next scale what the first pass did: the teacher is the model that saw the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from etude.models.picture_tokens import ScaleTokenizer
from etude.models.scales import ScaleTransformer, token_cross_entropy

Stagger = Literal["last", "all", "random"]
"""Which scales the second pass predicts: the last one alone, every one but the first, or one at random. One scale alone is predicted from the caption, the start and what is
known of it, without the scales between; all of them see each other as in the first pass."""
Aim = Literal["teacher", "truth"]
Context = Literal["own", "truth"]


@dataclass(frozen=True)
class StudentForcing:
    """The second pass. weight: of its loss (0: none, and no pass). aim: what the first pass predicted, or the real tokens. context: as a control, real coarser scales."""

    weight: float = 0.01
    stagger: Stagger = "last"
    aim: Aim = "teacher"
    context: Context = "own"
    sample: bool = False


@dataclass(frozen=True)
class Forced:
    """A loss, with its two parts, and the tokens that went through the network for one picture."""

    loss: Tensor
    teacher: float
    student: float
    tokens: int


def forcing_loss(
    model: ScaleTransformer, tokenizer: ScaleTokenizer, captions: Tensor, tokens: Sequence[Tensor], generator: torch.Generator, *, settings: StudentForcing
) -> Forced:
    """Both passes for pictures as tokens of every scale [B, r^2] with captions [B, 4]."""
    count, sides = len(tokens), model.shape.scales
    logits = model(captions, [tokenizer.next_input(tokens[: i + 1]) for i in range(count - 1)])
    teacher = token_cross_entropy(logits, tokens)
    if not settings.weight:
        return Forced(teacher, float(teacher.detach()), 0.0, model.tokens)
    own = [_choose(each.detach(), settings.sample, generator) for each in logits]
    read = own if settings.context == "own" else tokens
    aims = own if settings.aim == "teacher" else tokens
    scales = list(range(1, count)) if settings.stagger == "all" else [count - 1]
    if settings.stagger == "random":
        scales = [int(torch.randint(1, count, (), generator=generator))]
    known = [tokenizer.next_input(read[:scale]) for scale in scales]
    answers = model(captions, known, which=[0, *scales])[1:]
    student = token_cross_entropy(answers, [aims[scale] for scale in scales])
    second = model.tokens - sum(sides[scale] ** 2 for scale in range(1, count) if scale not in scales)
    return Forced(teacher + settings.weight * student, float(teacher.detach()), float(student.detach()), model.tokens + second)


def _choose(logits: Tensor, sample: bool, generator: torch.Generator) -> Tensor:
    if not sample:
        return logits.argmax(-1)
    return torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator).view(logits.shape[:2])
