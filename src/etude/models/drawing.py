"""Drawing tokens: per-sequence counter-based random numbers, truncation, and inverse-CDF sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.errors import NonFiniteError
from etude.models.sampling import SamplingParams
from etude.types import Alternatives

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniforms(keys_B: NDArray[np.uint64], counters_B: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1): number `counters_B[i]` of the stream `keys_B[i]` (SplitMix64, Steele et al. 2014).

    A pure function of key and counter, so a sequence's draws depend neither on its neighbours in the batch nor on interruptions. Returns [B].
    """
    z = keys_B + (counters_B + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def truncate(logits_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor) -> Tensor:
    """Set all but the top-k, then all outside the smallest set with mass top-p (Holtzman et al. 2020), to -inf.

    top_k 0 and top_p 1 keep everything; the most likely token always stays. Returns [B, V].
    """
    ordered, order = logits_BV.sort(dim=-1, descending=True)
    rank = torch.arange(logits_BV.shape[1], device=logits_BV.device)
    drop = (top_k_B[:, None] > 0) & (rank >= top_k_B[:, None])
    mass = ordered.masked_fill(drop, -torch.inf).softmax(dim=-1)
    before = mass.cumsum(dim=-1) - mass
    drop |= (top_p_B[:, None] < 1) & (before >= top_p_B[:, None])
    drop[:, 0] = False
    return logits_BV.masked_fill(torch.zeros_like(drop).scatter(1, order, drop), -torch.inf)


def draw_several(probabilities_BV: Tensor, uniforms_BK: Tensor) -> Tensor:
    """K tokens of each row by inverse CDF: the first whose cumulative probability exceeds the uniform number. Returns [B, K]."""
    cumulative = probabilities_BV.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # A number just below 1 rounds to 1 in float32, which would point past the last possible token.
    threshold = torch.minimum(uniforms_BK.to(cumulative.dtype) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, threshold, right=True)


def entropy(probabilities_BV: Tensor, logprobs_BV: Tensor) -> Tensor:
    """Entropy in nats of each row; excluded tokens (log-probability -inf) count nothing. Returns [B]."""
    return -(probabilities_BV * logprobs_BV.clamp_min(-1e4)).sum(dim=-1)


@dataclass(slots=True)
class Drawn:
    """One token for each of some sequences, and what is known of it, in nats. `alternatives` is None where no sequence asked for any."""

    tokens: list[int]
    logprobs: list[float]
    entropies: list[float]
    alternatives: list[Alternatives | None] | None


def draw_tokens(
    logits_RV: Tensor, params: Sequence[SamplingParams], streams: Sequence[int], counters: Sequence[int], rows: Sequence[int] | None = None
) -> Drawn:
    """Draw a token for each of B sequences: temperature, truncation, and draw number `counters[i]` of the stream `streams[i]`; greedy where the temperature is 0.

    logits_RV: [R, V] float32; sequence i draws from row `rows[i]` (None: row i), so that sequences with the same tokens behind them need no row each.
    Log-probabilities, entropies and alternatives are those of the distribution that was drawn from. Raises NonFiniteError for logits that hold NaN or infinity.
    """
    plain = all(p.plain for p in params)
    device = logits_RV.device
    row = np.arange(len(params)) if rows is None else np.asarray(rows)
    of_row: Sequence[SamplingParams] = params
    if len({(p.temperature, p.top_k, p.top_p) for p in params}) == 1:
        of_row = [params[0]] * len(logits_RV)
    elif rows is not None:
        # Sequences that are drawn in different ways need a row each.
        logits_RV, row = logits_RV[torch.from_numpy(row).to(device)], np.arange(len(params))
    temperatures = [p.temperature for p in of_row]
    if any(t not in (0.0, 1.0) for t in temperatures):
        scale = torch.tensor([t if t > 0 else 1.0 for t in temperatures], device=device)
        logits_RV = logits_RV / scale[:, None]
    if not plain and any(p.top_k or p.top_p < 1 for p in of_row):
        top_k = torch.tensor([p.top_k for p in of_row], device=device)
        top_p = torch.tensor([p.top_p for p in of_row], device=device)
        logits_RV = truncate(logits_RV, top_k, top_p)
    logprobs_RV = logits_RV.log_softmax(dim=-1)
    probabilities_RV = logprobs_RV.exp()
    entropy_R = entropy(probabilities_RV, logprobs_RV)
    numbers = uniforms(np.array(streams, dtype=np.uint64), np.array(counters, dtype=np.uint64))
    number_in_row = _numbered(row)
    uniforms_RK = np.zeros((len(logits_RV), int(number_in_row.max()) + 1))
    uniforms_RK[row, number_in_row] = numbers
    row_B = torch.from_numpy(row).to(device)
    tokens_B = draw_several(probabilities_RV, torch.from_numpy(uniforms_RK).to(device))[row_B, torch.from_numpy(number_in_row).to(device)]
    if not plain:
        greedy = torch.tensor([p.temperature == 0 for p in params], device=device)
        if bool(greedy.any()):
            tokens_B = torch.where(greedy, logits_RV.argmax(dim=-1)[row_B], tokens_B)
    tokens = tokens_B.tolist()
    if max(tokens) >= logprobs_RV.shape[1]:
        # Inverse CDF finds no token where the probabilities are NaN.
        raise NonFiniteError("the logits are not finite: the model's weights hold NaN or infinity")
    logprobs = logprobs_RV[row_B, tokens_B].tolist()
    return Drawn(tokens, logprobs, entropy_R[row_B].tolist(), None if plain else _alternatives(params, logprobs_RV, row_B.tolist()))


def _numbered(row_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many earlier ones are in the same row, for each of B sequences."""
    order = np.argsort(row_B, kind="stable")
    ordered = row_B[order]
    result = np.empty_like(row_B)
    result[order] = np.arange(len(row_B)) - np.searchsorted(ordered, ordered)
    return result


def _alternatives(params: Sequence[SamplingParams], logprobs_RV: Tensor, rows: Sequence[int]) -> list[Alternatives | None] | None:
    """The most likely tokens of each sequence that asked for them; None where none did."""
    most = min(max(p.alternatives for p in params), logprobs_RV.shape[1])
    if not most:
        return None
    top = logprobs_RV.topk(most)
    tokens, values = top.indices.tolist(), top.values.tolist()
    return [Alternatives(tokens[r][: p.alternatives], values[r][: p.alternatives]) if p.alternatives else None for p, r in zip(params, rows, strict=True)]
