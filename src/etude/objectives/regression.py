"""Regression: a number read off the network, held against a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from etude.objectives.batch import Aggregation, Statistics, TokenBatch

NEAR = 0.1
"""How near a prediction has to come to count as accurate."""


@dataclass
class RegressionObjective:
    """The squared error of `read(logits [N, V]) -> [N]` at each trained token's place; the token's advantage is the target. For values in [0, 1], as a value model's.

    Statistics: `mse`, and `accuracy`, the share of predictions, cut to [0, 1], that are within NEAR of the target.
    """

    read: Callable[[Tensor], Tensor]
    aggregation: Aggregation = "token_mean"
    normal_length: int = 0
    needs_reference: bool = False
    differentiates_entropy: bool = False
    silent_without_advantage: bool = False
    whole_units: bool = False

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
        logits = batch.logits
        assert logits is not None
        targets, weights = (values[logits.row_N, logits.place_N] for values in (batch.advantages, batch.weights))
        predicted = self.read(logits.logits_NV)
        errors = (predicted - targets).square()
        count = torch.tensor(float(len(errors)), device=errors.device)
        near = (predicted.detach().clamp(0, 1) - targets).abs() <= NEAR
        return (weights * errors).sum(), {"mse": (errors.detach().sum(), count), "accuracy": (near.to(errors.dtype).sum(), count)}
