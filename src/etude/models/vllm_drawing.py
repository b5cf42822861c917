"""Étude's drawing inside vLLM: a logits processor that draws a token for each row and leaves only that one possible, so that vLLM, told to be greedy, takes it.

vLLM's own random numbers follow the batch, and it reports no entropies. Imports vLLM: only `vllm_sampler` imports this, when it starts.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.logits_processor.interface import BatchUpdate, LogitsProcessor

KEY = "etude"
"""Where a request's number stands in vLLM's `extra_args`."""
Choose = Callable[[Sequence[int], Tensor], list[int]]
"""Tokens for requests with these numbers and logits [B, V]."""


class DrawingProcessor(LogitsProcessor):
    """Knows which row of the batch is whose. `processor_for` says who draws."""

    choose: Choose

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.rows: dict[int, int] = {}

    def is_argmax_invariant(self) -> bool:
        """False: it decides what greedy choice takes, so it must never be left out."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self.rows, batch_update, _number)

    def apply(self, logits: Tensor) -> Tensor:
        if not self.rows:
            return logits
        rows = sorted(self.rows)
        tokens = self.choose([self.rows[row] for row in rows], logits if len(rows) == len(logits) else logits[rows])
        logits[rows] = -torch.inf
        logits[rows, tokens] = 0.0
        return logits


def _number(params: SamplingParams, prompt: list[int] | None, output: list[int]) -> int | None:
    return (params.extra_args or {}).get(KEY)


def processor_for(choose: Choose) -> type[DrawingProcessor]:
    """The class of a processor that draws with `choose`: vLLM makes the object itself."""
    return type("EtudeDraws", (DrawingProcessor,), {"choose": staticmethod(choose)})
