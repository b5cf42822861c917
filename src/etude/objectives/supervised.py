"""Imitation: the negative log-likelihood of given tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from etude.objectives.batch import Aggregation, Statistics, TokenBatch, masked


@dataclass
class SupervisedObjective:
    """-log pi(token), weighted by the tokens' advantages where `weighted` (rejection sampling gives kept answers 1)."""

    aggregation: Aggregation = "token_mean"
    weighted: bool = False
    normal_length: int = 0
    needs_reference: bool = False
    differentiates_entropy: bool = False
    whole_units: bool = False

    @property
    def silent_without_advantage(self) -> bool:
        return self.weighted

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
        loss = -batch.logprobs * batch.advantages if self.weighted else -batch.logprobs
        total = torch.where(batch.mask > 0, loss * batch.weights, 0.0).sum()
        return total, {"nll": masked(-batch.logprobs, batch.mask)}
