"""Learn to draw in any number of steps by judging one's own jumps (Self-E, arXiv:2512.22374).

A jump from time t to time s predicts a picture. The model makes noise of level s of its own prediction and asks itself, once with the caption and once without, what
picture is under it: where the two answers differ, the caption would be recognised more easily. The prediction is pulled that way, besides towards the real picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from etude.images.captions import MADE_BY_MODEL, NO_CAPTION
from etude.models.flow import FlowModel, noisy

LEAST_TIME_IN_WEIGHT = 0.05
MOST_TIME_IN_WEIGHT = 0.999
Judge = Literal["caption", "shuffled"]


@dataclass(frozen=True)
class SelfEvaluation:
    """How a model judges itself.

    pull: factor on the weight of its judgement (0: none). fake: whether it also learns which pictures are its own, and keeps away from them with the share `fake_share` of
    the judgement. renormalise: give the merged target the real picture's energy. judge: as a control, `shuffled` asks about other captions.
    """

    pull: float = 1.0
    fake: bool = False
    fake_share: float = 0.1
    renormalise: bool = True
    judge: Judge = "caption"


@dataclass(frozen=True)
class SelfEvaluated:
    """A loss, with what it was made of: the mean squared error to the target, that of the branch for own pictures, and the mean size of the judgement times its weight."""

    loss: Tensor
    fit: float
    fake: float
    judgement: float
    judged: int


def draw_jumps(times: Tensor, longest: float, generator: torch.Generator, *, local: float = 0.5) -> Tensor:
    """Second times [B]: a share `local` of them the first ones themselves, the others uniform from (1 - longest) t to t."""
    jumps = times * (1 - longest * torch.rand(times.shape, generator=generator))
    return torch.where(torch.rand(times.shape, generator=generator) < local, times, jumps)


def jump_weight(times: Tensor, until: Tensor) -> Tensor:
    """t / (1 - t) - s / (1 - s): how much the judgement of a jump weighs, 0 where it is none."""
    times, until = times.clamp(max=MOST_TIME_IN_WEIGHT), until.clamp(max=MOST_TIME_IN_WEIGHT)
    return times / (1 - times) - until / (1 - until)


def merged_target(real: Tensor, own: Tensor, weight: Tensor, *, renormalise: bool = True) -> Tensor:
    """What (x - real)^2 + weight (x - own)^2 pulls to, for pictures [B, ...] and weights [B]: their weighted mean, or its direction with the norm of the real picture."""
    weight = weight.view(-1, *[1] * (real.dim() - 1))
    merged = real + weight * own
    if not renormalise:
        return merged / (1 + weight)
    norms = [each.flatten(1).norm(dim=1).view_as(weight) for each in (real, merged)]
    return merged * norms[0] / norms[1].clamp(min=1e-8)


def own_pictures(captions: Tensor) -> Tensor:
    """Captions [B, 4] marked as those of pictures that the model made: the mark is in the first empty place, or in the last one."""
    free = (captions == 0).int()
    place = torch.where(free.any(1), free.argmax(1), captions.shape[1] - 1)
    return captions.scatter(1, place[:, None], MADE_BY_MODEL)


def self_evaluation_loss(
    model: FlowModel,
    average: FlowModel,
    pictures: Tensor,
    captions: Tensor,
    times: Tensor,
    until: Tensor,
    generator: torch.Generator,
    *,
    settings: SelfEvaluation,
) -> SelfEvaluated:
    """The loss on real pictures [B, 3, S, S] with captions [B, 4] (NO_CAPTION where dropped), for jumps from `times` to `until` [B].

    average: a moving average of the model, which judges with the caption; without it the model judges as it is. Rows that do not jump, or whose caption was dropped, learn
    from the real picture alone, as in flow matching: the squared error of the predicted picture over t^2 is that of the velocity.
    """
    mixed = noisy(pictures, torch.randn(pictures.shape, generator=generator), times)
    predicted = mixed - _wide(times) * model(mixed, times, captions, until)
    jumps = torch.nonzero((until < times) & (captions != NO_CAPTION).all(1) & (settings.pull > 0))[:, 0]
    target, judgement, fake = pictures.clone(), 0.0, torch.zeros(())
    if len(jumps):
        level, asked, made = until[jumps], captions[jumps], predicted[jumps].detach()
        under = noisy(made, torch.randn(made.shape, generator=generator), level)
        about = asked.roll(1, 0) if settings.judge == "shuffled" else asked
        with torch.no_grad():
            recognised = _clean(average, under, level, about)
            away = _clean(model, under, level, torch.full_like(asked, NO_CAPTION)) - recognised
            if settings.fake:
                away = (1 - settings.fake_share) * away + settings.fake_share * (_clean(model, under, level, own_pictures(asked)) - recognised)
        weight = settings.pull * jump_weight(times[jumps], level)
        target[jumps] = merged_target(pictures[jumps], made - away, weight, renormalise=settings.renormalise)
        judgement = float((weight * away.flatten(1).norm(dim=1)).mean())
        if settings.fake:
            fake = (_clean(model, under, level, own_pictures(asked)) - made).square().mean()
    errors = (predicted - target).square().flatten(1).mean(1)
    fit = (errors / times.clamp(min=LEAST_TIME_IN_WEIGHT).square()).mean()
    return SelfEvaluated(fit + fake, float(fit.detach()), float(fake.detach()), judgement, len(jumps))


@dataclass(frozen=True)
class Distilled:
    """A loss of distillation. forwards: passes of the teacher, in pictures."""

    loss: Tensor
    fit: float
    forwards: int


def distillation_loss(
    model: FlowModel,
    teacher: FlowModel,
    pictures: Tensor,
    captions: Tensor,
    times: Tensor,
    until: Tensor,
    generator: torch.Generator,
    *,
    teacher_steps: int = 8,
) -> Distilled:
    """The baseline with a teacher: a jump from `times` to `until` [B] learns the mean velocity of `teacher_steps` small steps of a trained flow over the same way.

    Starts are real pictures [B, 3, S, S] made noisy. Rows that do not jump learn from the real picture, as in flow matching.
    """
    noise = torch.randn(pictures.shape, generator=generator)
    mixed = noisy(pictures, noise, times)
    target = noise - pictures
    jumps = torch.nonzero(until < times)[:, 0]
    if len(jumps):
        target[jumps] = _mean_velocity(teacher, mixed[jumps], times[jumps], captions[jumps], until[jumps], teacher_steps)
    loss = (model(mixed, times, captions, until) - target).square().mean()
    return Distilled(loss, float(loss.detach()), teacher_steps * len(jumps))


@torch.no_grad()
def _mean_velocity(teacher: FlowModel, pictures: Tensor, times: Tensor, captions: Tensor, until: Tensor, steps: int) -> Tensor:
    """Mean velocity of even Euler steps of a flow from `times` to `until`: (x_t - x_s) / (t - s), which is the mean of the steps' velocities."""
    total = torch.zeros_like(pictures)
    length = (times - until) / steps
    for step in range(steps):
        velocity = teacher(pictures - _wide(length) * total, times - step * length, captions)
        total = total + velocity
    return total / steps


def _clean(model: FlowModel, pictures: Tensor, times: Tensor, captions: Tensor) -> Tensor:
    """The picture that a model sees under noise, as an ordinary flow does."""
    return pictures - _wide(times) * model(pictures, times, captions)


def _wide(times: Tensor) -> Tensor:
    return times[:, None, None, None]
