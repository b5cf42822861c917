"""What the optimiser minimises: pure functions of log-probabilities, and the objectives composed of them."""

from etude.objectives.batch import Aggregation, Objective, Statistics, TokenBatch, TokenLogits, masked, summed_weights, token_weights
from etude.objectives.divergence import k1, k2, k3, k3_plus
from etude.objectives.one_token import Look, OneTokenObjective, look
from etude.objectives.policy import AdaptiveEntropy, PolicyObjective, ppo_surrogate
from etude.objectives.preference import PreferenceObjective, dpo_loss
from etude.objectives.ratio import (
    behaviour_ratio,
    masked_weight,
    sequence_product,
    sequence_ratio,
    sequence_weight,
    token_ratio,
    truncated_weight,
)
from etude.objectives.regression import RegressionObjective
from etude.objectives.supervised import SupervisedObjective
from etude.objectives.surrogate import clipped_surrogate, clipped_weight_surrogate, dual_clipped

__all__ = [
    "AdaptiveEntropy",
    "Aggregation",
    "Look",
    "Objective",
    "OneTokenObjective",
    "PolicyObjective",
    "PreferenceObjective",
    "RegressionObjective",
    "Statistics",
    "SupervisedObjective",
    "TokenBatch",
    "TokenLogits",
    "behaviour_ratio",
    "clipped_surrogate",
    "clipped_weight_surrogate",
    "dpo_loss",
    "dual_clipped",
    "k1",
    "k2",
    "k3",
    "k3_plus",
    "look",
    "masked",
    "masked_weight",
    "ppo_surrogate",
    "sequence_product",
    "sequence_ratio",
    "sequence_weight",
    "summed_weights",
    "token_ratio",
    "token_weights",
    "truncated_weight",
]
