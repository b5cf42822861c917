"""Whether a tokenizer's tokens have an order, what they keep of a picture, and how much each of them says.

The test of order (Selftok, arXiv:2505.07538, section 3): small language models learn the sequences as they are, and shuffled in strides, [v1, v3, ..., v2, v4, ...]. Tokens
that come one out of the other are ever less surprising along the sequence, and along each part of a shuffled one. Tokens of places are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from etude.images.sources import Source
from etude.models.picture_code import PictureCode
from etude.models.vector_quantiser import perplexities, shares
from etude.types import Metrics

STRIDES = (1, 2, 3)
SKETCHED = 128
"""Pictures that are drawn from some of their tokens."""
PEAK = 2.0
"""From the darkest to the lightest."""


def token_metrics(code: PictureCode, source: Source, pictures: Tensor, captions: Tensor, tokens: Tensor, surprise: Tensor) -> Metrics:
    """What the tokens [N, K] of held-out pictures [N, 3, S, S] keep, and how they are used. surprise: cross-entropy of each under the language model [N, K].

    `eval/psnr` in decibels and `eval/kept_alignment` of pictures that were read and rendered; `eval/codes_used`, the perplexity of all tokens, and `eval/codes_used_least`
    of the position that uses fewest; `eval/surprise`, nats per token, and `tokens/surprise@k` of the k-th.
    """
    with torch.no_grad():
        rendered = code.render(tokens)
    used = shares(tokens, code.codes)
    found: Metrics = {
        "eval/psnr": psnr(rendered, pictures),
        "eval/codes_used": float(perplexities(used.mean(0, keepdim=True))),
        "eval/codes_used_least": float(perplexities(used).min()),
        "eval/surprise": float(surprise.mean()),
    }
    fit = source.alignment(rendered, captions)
    if fit is not None:
        found["eval/kept_alignment"] = float(fit.soft.mean())
    return found | {f"tokens/surprise@{i + 1}": float(value) for i, value in enumerate(surprise.mean(0))}


def psnr(made: Tensor, real: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels: 10 log10(range^2 / mean squared error), of pictures from -1 to 1."""
    return 10 * math.log10(PEAK**2 / max(float(F.mse_loss(made, real)), 1e-12))


def rates(count: int) -> list[int]:
    """Numbers of tokens that reconstruction is measured at: powers of two, and all."""
    return [*(n for n in (2**i for i in range(count.bit_length())) if n < count), count]


def reconstruction_by_rate(code: PictureCode, pictures: Tensor, tokens: Tensor) -> Metrics:
    """`tokens/psnr_first@n` and `tokens/psnr_last@n`: how near pictures are to what their first or their last n tokens alone give, in decibels."""
    some, written = pictures[:SKETCHED], tokens[:SKETCHED]
    found: Metrics = {}
    for count in rates(code.count):
        places = torch.arange(code.count)
        for name, kept in (("first", places < count), ("last", places >= code.count - count)):
            drawn = code.sketch(written, kept, torch.Generator().manual_seed(0))
            found[f"tokens/psnr_{name}@{count}"] = psnr(drawn, some)
    return found


# The test of order


def strided(count: int, stride: int) -> list[list[int]]:
    """The parts of a sequence of `count` places taken in strides: [0, s, 2s, ...], [1, 1 + s, ...], ...; one part, in order, for stride 1."""
    return [list(range(start, count, stride)) for start in range(stride)]


def order_correlation(entropies: Sequence[float], stride: int) -> float:
    """Spearman's rank correlation of place and entropy along a sequence that was read in strides: the mean over its parts, weighted by their length. From -1, ever less, to 1.

    entropies: by place in the sequence as it was read. A part without differences counts 0.
    """
    at, total = 0, 0.0
    for part in strided(len(entropies), stride):
        own = list(entropies[at : at + len(part)])
        at += len(part)
        if len(set(own)) > 1:
            found: Any = spearmanr(range(len(own)), own)
            total += len(part) * float(found.statistic)
    return total / len(entropies)


def entropies_by_place(
    learnt: Tensor, measured: Tensor, codes: int, *, seed: int, steps: int = 300, batch: int = 128, width: int = 48, layers: int = 2, lr: float = 3e-3
) -> list[float]:
    """Entropy of each place of sequences [N, K] given those before it, in nats, estimated from above: cross-entropy on `measured` of a small Llama that has read `learnt`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=codes + 1,
                hidden_size=width,
                intermediate_size=3 * width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                max_position_embeddings=learnt.shape[1] + 1,
                tie_word_embeddings=True,
                initializer_range=0.05,
                bos_token_id=codes,
                eos_token_id=None,
            )
        )
    random = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    for _ in range(steps):
        losses = _losses(model, learnt[torch.from_numpy(random.integers(len(learnt), size=batch))], codes)
        optimiser.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return torch.cat([_losses(model, part, codes) for part in measured.split(512)]).mean(0).tolist()


def _losses(model: torch.nn.Module, tokens: Tensor, begin: int) -> Tensor:
    """Cross-entropy of each token [N, K]."""
    read = torch.cat([torch.full((len(tokens), 1), begin), tokens[:, :-1]], dim=1)
    logits = model(input_ids=read, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
