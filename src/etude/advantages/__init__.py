"""How judgement becomes credit: advantages per trajectory or per token, from the rewards of a group or of a whole batch.

The functions take and give plain numbers; `assign` and its kin write the result onto trajectories.
"""

from etude.advantages.assign import BatchAdvantage, GroupAdvantage, assign, assign_over_batch, assign_tokens, signal_metrics
from etude.advantages.group import batch_normalised, centred, group_normalised, has_signal, leave_one_out
from etude.advantages.selection import dynamic_sampling, mixed_accuracy
from etude.advantages.tokens import (
    penalised_reward,
    reinforce_pp,
    reinforce_pp_baseline,
    reinforce_pp_baseline_by_trajectory,
    returns_to_go,
    token_rewards,
    whitened,
)

__all__ = [
    "BatchAdvantage",
    "GroupAdvantage",
    "assign",
    "assign_over_batch",
    "assign_tokens",
    "batch_normalised",
    "centred",
    "dynamic_sampling",
    "group_normalised",
    "has_signal",
    "leave_one_out",
    "mixed_accuracy",
    "penalised_reward",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "reinforce_pp_baseline_by_trajectory",
    "returns_to_go",
    "signal_metrics",
    "token_rewards",
    "whitened",
]
