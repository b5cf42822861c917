"""How judgement becomes per-token credit: pure functions of rewards, and how to write their results onto trajectories."""

from etude.advantages.assign import assign_by_group, assign_tokens, whiten_tokens, whiten_trajectories
from etude.advantages.diversity import diversity_weights, weighted_by_diversity
from etude.advantages.group import batch_normalised, centred, group_normalised, leave_one_out
from etude.advantages.novelty import sharpened_by_novelty
from etude.advantages.reshaping import bounded, entropy_weights
from etude.advantages.returns import group_relative_returns
from etude.advantages.turns import assign_turns, by_turn, turn_returns
from etude.advantages.whitening import returns_to_go, rewards_with_kl, whiten

__all__ = [
    "assign_by_group",
    "assign_tokens",
    "assign_turns",
    "batch_normalised",
    "bounded",
    "by_turn",
    "centred",
    "diversity_weights",
    "entropy_weights",
    "group_normalised",
    "group_relative_returns",
    "leave_one_out",
    "returns_to_go",
    "rewards_with_kl",
    "sharpened_by_novelty",
    "turn_returns",
    "weighted_by_diversity",
    "whiten",
    "whiten_tokens",
    "whiten_trajectories",
]
