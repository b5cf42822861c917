"""How experience is gathered: episodes over one sampler, single- or multi-turn, groups of them, and groups that grow with how their first attempts went."""

from etude.rollouts.adaptive import adaptive_rollouts
from etude.rollouts.dynamic import is_mixed, until_enough
from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.rollouts.group import group_rollouts

__all__ = ["EpisodeRequest", "adaptive_rollouts", "group_rollouts", "is_mixed", "run_episodes", "until_enough"]
