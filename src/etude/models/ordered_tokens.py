"""Pictures as a few tokens in the order in which diffusion decides what is in them (Selftok, arXiv:2505.07538).

An encoder says a picture in K tokens, and a flow decoder learns to remove noise with their help. The decoder is not shown them all: near pure noise it sees every token,
and the nearer it comes to the picture the fewer, first 1 less, then 2, ... What the first tokens say has to be in the noisy picture by then. So each token
says what those after it do not, at the time at which it disappears: first what is settled near pure noise, last what is settled at the end. `segments` is that schedule:
how many tokens disappear in each of as many equal spans of time. With `ordered` off the decoder always sees all of them (FlowMo, arXiv:2503.11056), and the order
means nothing.

Decoding by diffusion is slow and random. The renderer is a copy of the decoder that draws in one step, from a canvas of its own in place of noise.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.images.drawing import SIZE
from etude.models.caption_embedding import plane_positions
from etude.models.flow import FlowBlock, FlowShape, TimeEmbedding, noisy, patches_to_pixels, pixels_to_patches, time_grid
from etude.models.picture_code import CodeLoss, PictureCode
from etude.models.vector_quantiser import CosineQuantiser

PATCH = 4
LEAST_TIME_IN_WEIGHT = 0.1
"""Errors are weighed as those of the velocity, by 1 / t^2, down to this time. Unweighted, nearly all that counts happens in thick noise, where every token is seen, and
there is no reason for one to say what the others do not."""
SKETCHING_STEPS = 4
"""Steps of diffusion in which a picture is drawn from some of its tokens."""


@dataclass(frozen=True)
class OrderedShape:
    """Sizes of a tokenizer: codes and their width, the transformers' width, layers and heads, and the schedule of the tokens."""

    codes: int = 64
    code_width: int = 8
    width: int = 64
    encoder_layers: int = 2
    decoder_layers: int = 3
    heads: int = 4
    segments: tuple[int, ...] = (1, 2, 3, 5, 5)
    ordered: bool = True
    decay: float = 0.99

    @property
    def count(self) -> int:
        """Tokens of a picture."""
        return sum(self.segments)


def first_visible(times: Tensor, segments: tuple[int, ...]) -> Tensor:
    """k(t): the number, from 1, of the first token that is seen at times [B] from 1 (noise, k = 1) to 0 (the picture, k = K + 1).

    segments: how many tokens disappear in each of as many equal spans, the noisiest first; within a span they disappear evenly.
    """
    return gone(times, segments).floor().long() + 1


def gone(times: Tensor, segments: tuple[int, ...]) -> Tensor:
    """How many tokens have disappeared at times [B], as a real number from 0 to K."""
    each = torch.tensor(segments, dtype=torch.float64)
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), each.cumsum(0)])
    # Rounded, so that the end of a span is not missed by the last digit.
    place = ((1 - times.double()) * len(segments)).mul(1e9).round().div(1e9).clamp(0, len(segments))
    span = place.floor().long().clamp(max=len(segments) - 1)
    return ends[span] + (place - span) * each[span]


def token_times(segments: tuple[int, ...]) -> Tensor:
    """The time at which each token disappears [K]."""
    spans = [1 - (span + (i + 1) / size) / len(segments) for span, size in enumerate(segments) for i in range(size)]
    return torch.tensor(spans, dtype=torch.float32)


class Half(nn.Module):
    """One of the two streams of a block: its own projections, scaled, shifted and gated by what each of its tokens is told."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attend = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(approximate="tanh"), nn.Linear(expansion * width, width))
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        open_gates(self.modulate, width, 0.5)

    def project(self, x: Tensor, told: Tensor) -> Tensor:
        """Queries, keys and values [3, B, H, N, D] of tokens [B, N, width], told [N, width] each."""
        scale, shift = self.modulate(told).chunk(6, dim=-1)[:2]
        return self.attend(self.norms[0](x) * (1 + scale) + shift).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def close(self, x: Tensor, attended: Tensor, told: Tensor) -> Tensor:
        """The tokens after what they attended to [B, N, width] and a feed-forward layer."""
        _, _, gate_a, scale, shift, gate_f = self.modulate(told).chunk(6, dim=-1)
        x = x + gate_a * self.join(attended)
        return x + gate_f * self.feed(self.norms[1](x) * (1 + scale) + shift)


class Encoder(nn.Module):
    """Patches and K queries in two streams with weights of their own and one attention (MMDiT). Pictures [B, 3, 16, 16] to vectors [B, K, C].

    Every query is told its token's time. All see all: that tokens depend on each other in order is the decoder's doing. What leaves is standardised, each number of each
    token over the pictures: otherwise tokens are above all different from each other, few codes are left for each, and they say little of the picture.
    """

    def __init__(self, shape: OrderedShape) -> None:
        super().__init__()
        width = shape.width
        self.enter = nn.Linear(3 * PATCH**2, width)
        self.places = nn.Parameter(patch_positions(width))
        self.queries = nn.Parameter(0.5 * torch.randn(shape.count, width))
        self.told_patches = nn.Parameter(torch.zeros(1, width))
        self.time = TimeEmbedding(width)
        self.register_buffer("times", token_times(shape.segments), persistent=False)
        self.patch_halves = nn.ModuleList(Half(width, shape.heads, 3) for _ in range(shape.encoder_layers))
        self.query_halves = nn.ModuleList(Half(width, shape.heads, 3) for _ in range(shape.encoder_layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, shape.code_width)
        self.standard = nn.BatchNorm1d(shape.count * shape.code_width, affine=False)

    def forward(self, pictures: Tensor, *, learns: bool = False) -> Tensor:
        """learns: standardise by these pictures, and remember their moments."""
        x = self.enter(pixels_to_patches(pictures, PATCH)) + self.places
        told: Tensor = F.silu(self.time(self.get_buffer("times")))
        q, patches = self.queries.expand(len(x), -1, -1), x.shape[1]
        for patch_half, query_half in zip(self.patch_halves, self.query_halves, strict=True):
            assert isinstance(patch_half, Half)
            assert isinstance(query_half, Half)
            asked, keys, values = torch.cat([patch_half.project(x, self.told_patches), query_half.project(q, told)], dim=3)
            attended = F.scaled_dot_product_attention(asked, keys, values).transpose(1, 2).flatten(2)
            x = patch_half.close(x, attended[:, :patches], self.told_patches)
            q = query_half.close(q, attended[:, patches:], told)
        vectors = self.leave(self.norm(q))
        return self.standard.train(learns)(vectors.flatten(1)).view_as(vectors)


class Decoder(nn.Module):
    """Noisy pictures and codes to the pictures without noise; or, as a renderer, codes alone: then a learnt canvas takes the place of the noisy patches."""

    def __init__(self, shape: OrderedShape, *, renders: bool = False) -> None:
        super().__init__()
        width = shape.width
        self.enter = nn.Linear(3 * PATCH**2, width)
        self.places = nn.Parameter(patch_positions(width))
        self.slots = nn.Linear(shape.code_width, width)
        self.hidden = nn.Parameter(0.02 * torch.randn(width))
        self.time = TimeEmbedding(width)
        self.slot_time = TimeEmbedding(width)
        self.register_buffer("times", token_times(shape.segments), persistent=False)
        block = FlowShape(width=width, heads=shape.heads)
        self.blocks = nn.ModuleList(FlowBlock(block) for _ in range(shape.decoder_layers))
        for layer in self.blocks:
            assert isinstance(layer, FlowBlock)
            open_gates(layer.modulate, width, 1.0)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, 3 * PATCH**2)
        self.canvas = nn.Parameter(torch.zeros_like(self.places)) if renders else None

    def forward(self, codes: Tensor, visible: Tensor, pictures: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """[B, 3, 16, 16] from codes [B, K, C], of which only the visible ones [B, K] are seen, noisy pictures [B, 3, 16, 16] and their times [B].

        A renderer is given neither pictures nor times.
        """
        slots = torch.where(visible[..., None], self.slots(codes * codes.shape[-1] ** 0.5), self.hidden) + self.slot_time(self.get_buffer("times"))
        if pictures is None or times is None:
            assert self.canvas is not None, "only a renderer draws without a noisy picture"
            patches = (self.canvas + self.places).expand(len(codes), -1, -1)
            times = torch.ones(len(codes))
        else:
            patches = self.enter(pixels_to_patches(pictures, PATCH)) + self.places
        told, x = F.silu(self.time(times)), torch.cat([patches, slots], dim=1)
        for block in self.blocks:
            x = block(x, told)
        return patches_to_pixels(self.leave(self.norm(x[:, : patches.shape[1]])), PATCH)


class OrderedTokenizer(PictureCode):
    """Encoder, codebook, decoder and renderer."""

    kind = "ordered"

    def __init__(self, shape: OrderedShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or OrderedShape()
        self.count, self.codes = shape.count, shape.codes
        self.encoder = Encoder(shape)
        self.quantiser = CosineQuantiser(shape.codes, shape.code_width, decay=shape.decay)
        self.decoder = Decoder(shape)
        self.renderer = Decoder(shape, renders=True)

    def encode(self, pictures: Tensor) -> Tensor:
        return self.quantiser.nearest(self.encoder(pictures))

    def visible_at(self, times: Tensor) -> Tensor:
        """Which tokens the decoder sees at times [B]: [B, K]."""
        first = first_visible(times, self.shape.segments) if self.shape.ordered else torch.ones(len(times), dtype=torch.long)
        return torch.arange(1, self.count + 1) >= first[:, None]

    def loss(self, pictures: Tensor, generator: torch.Generator) -> CodeLoss:
        times = torch.rand(len(pictures), generator=generator)
        noise = torch.randn(pictures.shape, generator=generator)
        vectors = self.encoder(pictures, learns=True)
        self.quantiser.follow(vectors, generator)
        found = self.quantiser(vectors)
        # Tokens that are not seen get no gradient from the picture: the mask stands in their place.
        clean = self.decoder(found.vectors, self.visible_at(times), noisy(pictures, noise, times), times)
        errors = (clean - pictures).square().flatten(1).mean(1)
        return CodeLoss((errors / times.clamp(min=LEAST_TIME_IN_WEIGHT).square()).mean(), found)

    def begin_rendering(self) -> None:
        """Make the renderer a copy of the decoder, with a canvas of its own."""
        weights = copy.deepcopy(self.decoder.state_dict())
        self.renderer.load_state_dict(weights, strict=False)

    def rendering_loss(self, pictures: Tensor) -> Tensor:
        """Squared error of what is rendered from pictures' tokens. Only the renderer learns from it."""
        with torch.no_grad():
            codes = self.quantiser.codebook[self.encode(pictures)]
        return F.mse_loss(self.renderer(codes, torch.ones(codes.shape[:2], dtype=torch.bool)), pictures)

    def render(self, tokens: Tensor) -> Tensor:
        codes = self.quantiser.codebook[tokens]
        return self.renderer(codes, torch.ones(codes.shape[:2], dtype=torch.bool)).clamp(-1, 1)

    def sketch(self, tokens: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(tokens), 3, SIZE, SIZE, generator=generator)
        return self.decode(tokens, noise, steps=SKETCHING_STEPS, kept=kept)

    @torch.no_grad()
    def decode(self, tokens: Tensor, noise: Tensor, *, steps: int = 8, kept: Tensor | None = None) -> Tensor:
        """Pictures by diffusion, from tokens [B, K] and noise [B, 3, 16, 16], in Euler steps. kept: tokens [K] that are there at all; the others are never seen."""
        codes, x = self.quantiser.codebook[tokens], noise
        grid = time_grid(steps).tolist()
        for now, then in itertools.pairwise(grid):
            times = torch.full((len(x),), now)
            visible = self.visible_at(times) if kept is None else self.visible_at(times) & kept
            # Towards the picture that is seen under the noise: the velocity is (x - picture) / t.
            x = x + (now - then) / now * (self.decoder(codes, visible, x, times) - x)
        return x.clamp(-1, 1)


def open_gates(modulate: nn.Linear, width: int, gate: float) -> None:
    """Let the gates of a block begin at this and not at zero: a decoder that sees no tokens at first takes long to find out what they say."""
    with torch.no_grad():
        modulate.bias.view(6, width)[[2, 5]] = gate


def patch_positions(width: int) -> Tensor:
    """Positions of the patches in the plane [16, width]."""
    side = SIZE // PATCH
    return plane_positions([((row + 0.5) * PATCH, (column + 0.5) * PATCH) for row in range(side) for column in range(side)], width)
