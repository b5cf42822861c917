"""A policy that draws pictures by removing noise: a small transformer that predicts a velocity, and the ways to walk along it.

A picture x0 and noise e are mixed as x_t = (1 - t) x0 + t e, t from 1 (noise) to 0. The network answers v(x, t, c, s), the velocity e - x0 at time t given caption c, on
average. With a second time s it says the mean velocity of a jump from t to s, for models that learn that; by default s = t, an ordinary flow.

Walking along v is deterministic. `noisy_step` walks with noise instead, so that every step is an action with a probability, which policy gradients need.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from etude.errors import InputError
from etude.images.captions import NO_CAPTION
from etude.images.drawing import SIZE
from etude.models.caption_embedding import CaptionEmbedding, CaptionShape, plane_positions

LEAST_TIME, MOST_TIME = 0.01, 0.999
"""Times that training draws are clamped to."""
LEAST_DEVIATION = 1e-8


@dataclass(frozen=True)
class FlowShape:
    """Sizes of a flow model."""

    patch: int = 4
    width: int = 96
    layers: int = 4
    heads: int = 4
    expansion: int = 3
    caption: CaptionShape = field(default_factory=CaptionShape)


class FlowModel(nn.Module):
    """A transformer over patches of the picture and the places of the caption, told the time by scales and shifts that begin at zero (DiT, Peebles and Xie, 2023).

    Positions of patches and of captions' places start from one map of the plane.
    """

    def __init__(self, shape: FlowShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or FlowShape()
        side, values = SIZE // shape.patch, 3 * shape.patch**2
        centres = [((row + 0.5) * shape.patch, (column + 0.5) * shape.patch) for row in range(side) for column in range(side)]
        self.enter = nn.Linear(values, shape.width)
        self.places = nn.Parameter(plane_positions(centres, shape.width))
        self.caption = CaptionEmbedding(shape.caption, shape.width)
        self.time = TimeEmbedding(shape.width)
        self.jump = TimeEmbedding(shape.width)
        self.blocks = nn.ModuleList(FlowBlock(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, elementwise_affine=False)
        self.modulate = nn.Linear(shape.width, 2 * shape.width)
        self.leave = nn.Linear(shape.width, values)
        for layer in (self.modulate, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, pictures: Tensor, times: Tensor, captions: Tensor, until: Tensor | None = None) -> Tensor:
        """Velocities [B, 3, 16, 16] at times [B] of noisy pictures [B, 3, 16, 16] with captions [B, W]. until: the second time s [B]; None: the same as `times`."""
        patches = pixels_to_patches(pictures, self.shape.patch)
        x = torch.cat([self.enter(patches) + self.places, self.caption(captions)], dim=1)
        told = F.silu(self.time(times) + self.jump(times - until if until is not None else torch.zeros_like(times)))
        for block in self.blocks:
            x = block(x, told)
        scale, shift = self.modulate(told)[:, None].chunk(2, dim=-1)
        out = self.leave(self.norm(x[:, : patches.shape[1]]) * (1 + scale) + shift)
        return patches_to_pixels(out, self.shape.patch)

    @property
    def tokens(self) -> int:
        """Tokens that one picture is to the network."""
        return (SIZE // self.shape.patch) ** 2 + self.shape.caption.words

    def save(self, folder: Path) -> None:
        """Write weights and sizes."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"kind": "flow", **asdict(self.shape)}, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> FlowModel:
        """Read what `save` wrote. Raises InputError for a folder that holds no flow model."""
        try:
            config = json.loads((folder / "config.json").read_text())
            if config.pop("kind", None) != "flow":
                raise InputError(f'{folder} holds no flow model: its config.json does not say "kind": "flow"')
            model = cls(FlowShape(**{**config, "caption": CaptionShape(**config["caption"])}))
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{folder} holds no flow model that can be read: {error}; expected config.json and model.safetensors as `save` writes them"
            ) from error
        return model


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time, through two layers: [B] to [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.register_buffer("frequencies", 1000.0 * torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2)), persistent=False)

    def forward(self, times: Tensor) -> Tensor:
        angles = times[:, None] * cast(Tensor, self.frequencies)
        return self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))


class FlowBlock(nn.Module):
    """Attention and a feed-forward layer, each scaled, shifted and gated by the time; the gates begin at zero."""

    def __init__(self, shape: FlowShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attend = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, shape.expansion * width), nn.GELU(approximate="tanh"), nn.Linear(shape.expansion * width, width))
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale_a, shift_a, gate_a, scale_f, shift_f, gate_f = self.modulate(told)[:, None].chunk(6, dim=-1)
        q, k, v = self.attend(self.norms[0](x) * (1 + scale_a) + shift_a).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + gate_a * self.join(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + gate_f * self.feed(self.norms[1](x) * (1 + scale_f) + shift_f)


def pixels_to_patches(pictures: Tensor, patch: int) -> Tensor:
    """[B, 3, S, S] to [B, (S / patch)^2, 3 patch^2], row by row."""
    return F.unfold(pictures, patch, stride=patch).transpose(1, 2)


def patches_to_pixels(patches: Tensor, patch: int) -> Tensor:
    """The way back."""
    return F.fold(patches.transpose(1, 2), (SIZE, SIZE), patch, stride=patch)


# Training


def noisy(pictures: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t = (1 - t) x0 + t e."""
    t = times[:, None, None, None]
    return (1 - t) * pictures + t * noise


def draw_times(count: int, generator: torch.Generator) -> Tensor:
    """Times for training, logit-normal: the middle more often than the ends [count]."""
    return torch.randn(count, generator=generator).sigmoid().clamp(LEAST_TIME, MOST_TIME)


def drop_captions(captions: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Captions [B, 4], a share of them replaced by none, so that the model also learns to draw without (classifier-free guidance)."""
    dropped = torch.rand(len(captions), generator=generator) < share
    return torch.where(dropped[:, None], NO_CAPTION, captions)


def flow_matching_loss(model: FlowModel, pictures: Tensor, captions: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    """Mean of |v(x_t, t, c) - (e - x0)|^2 (Lipman et al., 2023)."""
    return F.mse_loss(model(noisy(pictures, noise, times), times, captions), noise - pictures)


# Sampling


SecondTime = Literal["same", "next"]


def time_grid(steps: int, *, shift: float = 1.0) -> Tensor:
    """Times from 1 to 0, steps + 1 of them. shift above 1 spends more steps on noise: t <- shift t / (1 + (shift - 1) t)."""
    if steps < 1:
        raise InputError(f"a picture is drawn in {steps} steps; expected at least 1")
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return (shift * even / (1 + (shift - 1) * even)).float()


def guided(model: FlowModel, pictures: Tensor, times: Tensor, captions: Tensor, until: Tensor | None = None, *, guidance: float = 1.0) -> Tensor:
    """The velocity under classifier-free guidance (Ho and Salimans, 2022): v_none + w (v_caption - v_none); w = 1 is the caption alone and one pass."""
    velocity = model(pictures, times, captions, until)
    if guidance == 1:
        return velocity
    without = model(pictures, times, torch.full_like(captions, NO_CAPTION), until)
    return without + guidance * (velocity - without)


@torch.no_grad()
def walk(model: FlowModel, captions: Tensor, noise: Tensor, steps: int, *, guidance: float = 1.0, second: SecondTime = "same", shift: float = 1.0) -> Tensor:
    """Pictures for captions [B, 4] from noise [B, 3, 16, 16], by Euler steps. second: the second time that the model is told, its own or that of the step's end."""
    x, grid = noise, time_grid(steps, shift=shift).tolist()
    for now, then in itertools.pairwise(grid):
        times = torch.full((len(x),), now)
        until = torch.full_like(times, then) if second == "next" else None
        x = x - (now - then) * guided(model, x, times, captions, until, guidance=guidance)
    return x


def noisy_step(x: Tensor, velocity: Tensor, now: Tensor, then: Tensor, *, eta: float) -> tuple[Tensor, Tensor]:
    """Means [B, ...] and standard deviations [B] of the next pictures when steps from times `now` to `then` [B] are taken with noise.

    With d = now - then, the mean is x - d v + eta^2 d score / 2 and the deviation eta sqrt(d), where score = -(x - (1 - now) x0) / now^2 and x0 = x - now v
    (DanceGRPO, arXiv:2505.07818): the same marginals as the walk without noise, up to the error of the step.
    """
    t, step = now.view(-1, 1, 1, 1), (now - then).view(-1, 1, 1, 1)
    score = -(x - (1 - t) * (x - t * velocity)) / t**2
    return x - step * velocity + 0.5 * eta**2 * step * score, (eta * (now - then).sqrt()).clamp(min=LEAST_DEVIATION)


def gaussian_logprob(value: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Log-density of values [B, ...] under independent Gaussians of deviations [B], the mean over all dimensions but the first: [B]. A mean, so that ratios stay near 1."""
    squares = ((value - mean) / deviation.view(-1, *[1] * (value.dim() - 1))).square().flatten(1).mean(1)
    return -0.5 * squares - deviation.log() - 0.5 * math.log(2 * math.pi)


def averaged(model: FlowModel, most: float = 0.999) -> AveragedModel:
    """A moving average of the weights (`.module`), which forgets fast at first: decay min(most, (1 + n) / (10 + n)) at the n-th `update_parameters`."""

    def step(average: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
        return average.lerp(now, 1 - min(most, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(model, avg_fn=step)
