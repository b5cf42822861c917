"""How experience is gathered: episodes over one sampler, single- or multi-turn, groups of them, and groups that grow with how their first attempts went."""

from etude.rollouts.adaptive import adaptive_rollouts
from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.rollouts.group import group_rollouts

__all__ = ["EpisodeRequest", "adaptive_rollouts", "group_rollouts", "run_episodes"]
