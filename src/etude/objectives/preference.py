"""Direct preference optimisation (arXiv:2305.18290)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from etude.objectives.batch import Aggregation, Statistics, TokenBatch


def dpo_loss(chosen_P: Tensor, rejected_P: Tensor, chosen_reference_P: Tensor, rejected_reference_P: Tensor, *, beta: float) -> Tensor:
    """-log sigmoid(beta ((log pi - log ref)(chosen) - (log pi - log ref)(rejected))), from sequence log-probabilities (eq. 7). Returns [P]."""
    return -logsigmoid(beta * ((chosen_P - chosen_reference_P) - (rejected_P - rejected_reference_P)))


@dataclass
class PreferenceObjective:
    """DPO over units of two rows: the chosen trajectory, then the rejected one. The mean over all pairs of the optimiser batch."""

    beta: float = 0.1
    aggregation: Aggregation = "seq_mean_token_sum"
    normal_length: int = 0
    needs_reference: bool = True
    differentiates_entropy: bool = False
    silent_without_advantage: bool = False
    whole_units: bool = True

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
        if len(batch.unit) % 2 or not bool((batch.unit[0::2] == batch.unit[1::2]).all()):
            raise ValueError("preference units must be pairs: the chosen trajectory, then the rejected one")
        assert batch.reference_logprobs is not None
        own = (batch.logprobs * batch.mask).sum(-1)
        reference = (batch.reference_logprobs * batch.mask).sum(-1)
        losses = dpo_loss(own[0::2], own[1::2], reference[0::2], reference[1::2], beta=self.beta)
        margins = self.beta * ((own - reference)[0::2] - (own - reference)[1::2]).detach()
        count = torch.tensor(float(len(margins)), device=own.device)
        statistics = {"margin": (margins.sum(), count), "preference_accuracy": ((margins > 0).to(own.dtype).sum(), count)}
        return losses.sum() / batch.units, statistics
