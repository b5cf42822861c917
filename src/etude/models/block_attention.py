"""Attention over a flat sequence of prompts and completions, so that neither padding nor repeated prompts reach the rest of the network.

A micro-batch is one row: all prompts, then all completions, end to end. Every layer but attention treats tokens one by one, so nothing else has to know. Attention sees
blocks: a prompt's tokens see their own past, a completion's its prompt and their own past. Only here are blocks padded to a common length.

Completions of one prompt often begin alike. Such a beginning lies in the row once, as part of the first completion that has it; the others' blocks hold only what is
their own, and look back on the beginning where it lies.

The function is registered with transformers under the name `etude`; without a `blocks` argument it is the library's own scaled-dot-product attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "etude"
"""The name that `attn_implementation` takes."""


class _Padded(torch.autograd.Function):
    """Flat tokens [N, ...] into padded blocks [M, ...]. Padding holds copies of any token, and what flows back into it is dropped."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index_M: Tensor, inverse_N: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_N)
        return flat.index_select(0, index_M)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (inverse_N,) = ctx.saved_tensors
        return gradients[0].index_select(0, inverse_N), None, None


class _Flat(torch.autograd.Function):
    """Padded blocks [M, ...] back into flat tokens [N, ...]."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, index_M: Tensor, inverse_N: Tensor, padding_P: Tensor) -> Tensor:
        ctx.save_for_backward(index_M, padding_P)
        return padded.index_select(0, inverse_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        index_M, padding_P = ctx.saved_tensors
        gradient = gradients[0].index_select(0, index_M)
        if len(padding_P):
            gradient.index_fill_(0, padding_P, 0.0)
        return gradient, None, None, None


class _Blocks:
    """Some spans of the flat sequence, padded on the right to the longest."""

    def __init__(self, starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> None:
        self.count, self.width = len(starts), max(lengths)
        length = torch.tensor(lengths)
        place = torch.arange(self.width)
        real = (place < length[:, None]).flatten()
        self.index = (torch.tensor(starts)[:, None] + place.clamp_max(length[:, None] - 1)).flatten().to(device)
        self.inverse = real.nonzero().squeeze(1).to(device)
        self.padding = (~real).nonzero().squeeze(1).to(device)
        self.lengths = length.to(device)

    def gather(self, part: Tensor) -> Tensor:
        """A stretch of flat tokens [n, heads, D] as [count, width, heads, D]."""
        return _Padded.apply(part, self.index, self.inverse).unflatten(0, (self.count, self.width))  # type: ignore[union-attr]

    def scatter(self, blocks: Tensor) -> Tensor:
        """[count, width, heads, D] as flat tokens [n, heads, D]."""
        return _Flat.apply(blocks.flatten(0, 1), self.index, self.inverse, self.padding)  # type: ignore[return-value]


@dataclass
class BlockPlan:
    """Who sees whom in one flat micro-batch: G prompts and then C completions, each completion with the prompt that it follows.

    `calls` counts the layers that used the plan: a model that does not hand arguments on to its attention is found out by it.
    """

    prompts: _Blocks
    completions: _Blocks | None
    """What each completion has of its own."""
    prompt_of: Tensor
    split: int
    """Where the completions begin in the flat sequence."""
    paths: Tensor | None = None
    """Where after `split` each completion's tokens lie from its first on, [C, longest], padded with its last; None where each is all its own."""
    begins: Tensor | None = None
    """Tokens that each completion takes from others, [C]; None as above."""
    calls: int = 0
    _masks: dict[tuple[str, int | None], Tensor | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        prompt_lengths: Sequence[int],
        completion_lengths: Sequence[int],
        prompt_of: Sequence[int],
        device: torch.device,
        paths: Sequence[NDArray[np.int64]] | None = None,
    ) -> BlockPlan:
        """`prompt_of[i]` is the prompt that completion i follows. Completions without tokens take no part.

        paths: where a completion's tokens lie among those of all completions, from its first on; the last `completion_lengths[i]` of them are its own and lie end to
        end, those before are an earlier completion's. Without it all are its own.
        """
        taking_part = [i for i, length in enumerate(completion_lengths) if length]
        lengths = [completion_lengths[i] for i in taking_part]
        plan = cls(
            prompts=_Blocks(_starts(prompt_lengths), prompt_lengths, device),
            completions=_Blocks(_starts(lengths), lengths, device) if lengths else None,
            prompt_of=torch.tensor([prompt_of[i] for i in taking_part], dtype=torch.long, device=device),
            split=sum(prompt_lengths),
        )
        if paths is not None and any(len(paths[i]) > completion_lengths[i] for i in taking_part):
            longest = max(len(paths[i]) for i in taking_part)
            padded = np.stack([np.pad(paths[i], (0, longest - len(paths[i])), mode="edge") for i in taking_part])
            plan.paths = torch.from_numpy(padded).to(device)
            plan.begins = torch.tensor([len(paths[i]) - completion_lengths[i] for i in taking_part], device=device)
        return plan

    def whole(self, part: Tensor) -> Tensor:
        """Flat tokens after `split`, [n, heads, D], as whole completions with what they take from others: [C, longest, heads, D]."""
        if self.paths is None:
            assert self.completions is not None
            return self.completions.gather(part)
        return part.index_select(0, self.paths.flatten()).unflatten(0, self.paths.shape)

    def prompt_mask(self, window: int | None) -> Tensor | None:
        """Who sees whom in prompts, [1, 1, Lp, Lp], where attention slides over `window` positions; None: everything before."""
        if window is None or window >= self.prompts.width:
            return None
        if ("prompts", window) not in self._masks:
            place = torch.arange(self.prompts.width, device=self.prompt_of.device)
            distance = place[:, None] - place
            self._masks["prompts", window] = ((distance >= 0) & (distance < window))[None, None]
        return self._masks["prompts", window]

    def completion_mask(self, window: int | None) -> Tensor | None:
        """Whom the tokens that are completions' own see, [C, 1, Lc, Lp + longest], or [1, ...] where all prompts and all beginnings are of one length."""
        if self.completions is None:
            return None
        if ("completions", window) not in self._masks:
            device = self.prompt_of.device
            before = torch.arange(self.prompts.width, device=device)
            after = torch.arange(self.completions.width if self.paths is None else self.paths.shape[1], device=device)
            prompt_C11 = self.prompts.lengths[self.prompt_of][:, None, None]
            begins_C = torch.zeros(1, dtype=torch.long, device=device) if self.begins is None else self.begins
            place_CT1 = (begins_C[:, None] + torch.arange(self.completions.width, device=device))[:, :, None]
            if self.begins is None and bool((prompt_C11 == prompt_C11[0]).all()):
                prompt_C11 = prompt_C11[:1]
            prompt = (before < prompt_C11).expand(-1, self.completions.width, -1)
            distance = place_CT1 - after
            within = distance >= 0
            if window is not None:
                prompt = prompt & (prompt_C11 + place_CT1 - before < window)
                within = within & (distance < window)
            self._masks["completions", window] = torch.cat([prompt, within.expand(len(prompt), -1, -1)], dim=2)[:, None]
        return self._masks["completions", window]


def _starts(lengths: Sequence[int]) -> list[int]:
    starts, at = [], 0
    for length in lengths:
        starts.append(at)
        at += length
    return starts


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    blocks: BlockPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention with the interface of transformers: query [1, heads, N, D] and keys and values [1, key heads, N, D] to [1, N, heads, D], as `blocks` has it."""
    if blocks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    blocks.calls += 1
    window = kwargs.get("sliding_window")
    split = blocks.split
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))

    def attend(q_: Tensor, k_: Tensor, v_: Tensor, mask: Tensor | None) -> Tensor:
        return sdpa_attention_forward(module, q_.transpose(1, 2), k_.transpose(1, 2), v_.transpose(1, 2), mask, dropout=dropout, scaling=scaling)[0]

    prompt_q, prompt_k, prompt_v = (blocks.prompts.gather(t[:split]) for t in (q, k, v))
    out = blocks.prompts.scatter(attend(prompt_q, prompt_k, prompt_v, blocks.prompt_mask(window)))
    if blocks.completions is not None:
        own_q, past_k, past_v = (blocks.completions.gather(q[split:]), blocks.whole(k[split:]), blocks.whole(v[split:]))
        keys = torch.cat([prompt_k.index_select(0, blocks.prompt_of), past_k], dim=1)
        values = torch.cat([prompt_v.index_select(0, blocks.prompt_of), past_v], dim=1)
        out = torch.cat([out, blocks.completions.scatter(attend(own_q, keys, values, blocks.completion_mask(window)))])
    return out[None], None


@torch.no_grad()
def takes_blocks(model: Any) -> bool:
    """Switch a model to block attention where it can, and say whether it did.

    Models differ in what they hand on to their attention, so this looks: three tokens, as blocks and plainly, must give the same logits. A model that does not
    pass, or uses another attention than the scaled dot product, stays as it was.
    """
    before = getattr(model.config, "_attn_implementation", None)
    if before not in ("sdpa", IMPLEMENTATION):
        return False
    device = next(model.parameters()).device
    inputs = torch.tensor([[1, 2, 3]], device=device).clamp_max_(model.config.get_text_config().vocab_size - 1)
    positions = torch.arange(3, device=device)[None]
    training = model.training
    model.eval()
    try:
        plain = model(input_ids=inputs, position_ids=positions, use_cache=False).logits
        model.set_attn_implementation(IMPLEMENTATION)
        plan = BlockPlan.of([2], [1], [0], device)
        blocks = model(input_ids=inputs, attention_mask=no_mask(model, device), position_ids=positions, use_cache=False, blocks=plan).logits
        layers = model.config.get_text_config().num_hidden_layers
        taken = plan.calls == layers and alike(blocks, plain)
    except (TypeError, ValueError, AttributeError, KeyError):
        taken = False
    finally:
        model.train(training)
    if not taken and before != IMPLEMENTATION:
        model.set_attn_implementation(before)
    return taken


def alike(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits differ by no more than the number format explains."""
    scale = float(expected.float().abs().nan_to_num(posinf=0.0).max()) or 1.0
    tolerance = scale * (1e-4 if expected.dtype == torch.float32 else 3e-2)
    return torch.allclose(logits.float(), expected.float(), rtol=0, atol=tolerance, equal_nan=True)


def no_mask(model: Any, device: torch.device) -> Any:
    """What to give as attention mask beside `blocks`: four-dimensional, so that it is handed on as it is and no other is built."""
    dummy = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return dict.fromkeys(kinds, dummy) if len(kinds) > 1 else dummy


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
