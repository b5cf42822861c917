"""A codebook of unit vectors: what is looked up is the code of the highest cosine, and codes follow the mean of what they stand for.

The way back goes straight through to what was looked up. Two losses keep the two together: a commitment, how far a vector lies from its code, and a diversity, which
rewards codes for being used alike, while they are not. Codes that hardly stand for anything are put where vectors of the newest batch are, rather at positions of the
sequence that have few codes between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REUSED = 0.2
"""A code whose usage falls below this share of the uniform one is put elsewhere, and begins again with this share."""
SHARPNESS = 10.0
"""Softmax of cosines times this says how a vector would like to be spread over the codes."""
DIVERSE = 0.6
"""Perplexity of a batch at a position, as a share of the codes, from which on it is diverse enough."""
STARTING_ROUNDS = 10


@dataclass(frozen=True)
class Quantised:
    """What looking vectors [B, K, C] up gave.

    tokens: numbers of their codes [B, K]. vectors: the codes [B, K, C], with the gradient of what was looked up. perplexity: that of a batch at a position, on average.
    """

    tokens: Tensor
    vectors: Tensor
    commitment: Tensor
    diversity: Tensor
    perplexity: float


class CosineQuantiser(nn.Module):
    """A codebook [V, C]. decay: what the means that codes follow keep of themselves with every batch."""

    def __init__(self, codes: int, width: int, *, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", F.normalize(torch.randn(codes, width), dim=1))
        self.register_buffer("sums", torch.zeros(codes, width))
        self.register_buffer("used", torch.zeros(codes))

    @property
    def codebook(self) -> Tensor:
        """The codes [V, C], of length 1 each."""
        return cast(Tensor, self.codes)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Numbers of the codes with the highest cosine: [..., C] to [...]."""
        return (F.normalize(vectors, dim=-1) @ self.codebook.T).argmax(-1)

    def forward(self, vectors: Tensor) -> Quantised:
        """Look vectors [B, K, C] up."""
        unit = F.normalize(vectors, dim=-1)
        cosines = unit @ self.codebook.T
        tokens = cosines.argmax(-1)
        codes = self.codebook[tokens]
        perplexity = float(perplexities(shares(tokens, len(self.codebook))).mean())
        return Quantised(
            tokens,
            unit + (codes - unit).detach(),
            F.mse_loss(unit, codes),
            diversity_loss(cosines) if perplexity < DIVERSE * len(self.codebook) else torch.zeros(()),
            perplexity,
        )

    @torch.no_grad()
    def follow(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Move the codes after a batch [B, K, C]: before the first one to where its vectors gather, and then by their means. Codes without use are put elsewhere."""
        unit = F.normalize(vectors.detach(), dim=-1)
        flat, count = unit.flatten(0, 1), len(self.codebook)
        used, sums = cast(Tensor, self.used), cast(Tensor, self.sums)
        begins = not bool(used.any())
        if begins:
            self._start(flat, generator)
        tokens = self.nearest(unit)
        chosen = F.one_hot(tokens.flatten(), count).to(flat)
        used.lerp_(chosen.mean(0), 1.0 if begins else 1 - self.decay)
        sums.mul_(self.decay).add_((1 - self.decay) * chosen.T @ flat / len(flat))
        idle = used < REUSED / count
        if bool(idle.any()):
            weights = reseeding_weights(shares(tokens, count)).expand_as(tokens).flatten()
            rows = torch.multinomial(weights, int(idle.sum()), replacement=True, generator=generator)
            sums[idle] = flat[rows] * REUSED / count
            used[idle] = REUSED / count
        self.codebook.copy_(F.normalize(sums, dim=1))

    def _start(self, flat: Tensor, generator: torch.Generator) -> None:
        """Spherical k-means from vectors [N, C] drawn at random."""
        count = len(self.codebook)
        codes = flat[torch.randint(len(flat), (count,), generator=generator)]
        for _ in range(STARTING_ROUNDS):
            chosen = F.one_hot((flat @ codes.T).argmax(1), count).to(flat)
            sums = chosen.T @ flat
            codes = torch.where(chosen.sum(0)[:, None] > 0, F.normalize(sums, dim=1), codes)
        self.codebook.copy_(codes)
        cast(Tensor, self.sums).copy_(codes / count)


def diversity_loss(cosines: Tensor) -> Tensor:
    """Minus the entropy, in nats, of how vectors spread over the codes at each position, from cosines [B, K, V]: softmax of 10 times the cosine, its mean over the batch,
    and the mean of the positions' entropies. Over all positions together it would be content with positions that share out the codes between them."""
    spread = (SHARPNESS * cosines).softmax(-1).mean(0)
    return (spread * spread.clamp(min=1e-9).log()).sum(-1).mean()


def shares(tokens: Tensor, codes: int) -> Tensor:
    """How often each code stands at each position of sequences [B, K]: [K, V]."""
    return F.one_hot(tokens, codes).to(torch.float64).mean(0)


def perplexities(used: Tensor) -> Tensor:
    """exp of the entropy of the codes that positions use [K, V]: [K], from 1 (always the same one) to V."""
    spread = used / used.sum(1, keepdim=True).clamp(min=1e-12)
    return (-(spread * spread.clamp(min=1e-12).log()).sum(1)).exp()


def reseeding_weights(used: Tensor) -> Tensor:
    """How likely each position's vectors are to become codes [K], from how positions use them [K, V]: the fewer they use, the likelier."""
    weights = 1 / perplexities(used)
    return weights / weights.sum()
