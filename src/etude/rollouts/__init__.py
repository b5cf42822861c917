"""How experience is gathered: episodes over one sampler, single- or multi-turn, and groups of them."""

from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.rollouts.group import group_rollouts

__all__ = ["EpisodeRequest", "group_rollouts", "run_episodes"]
