"""How experience is gathered: groups of episodes, single- or multi-turn."""

from etude.rollouts.group import EpisodeRequest, group_rollouts, run_episodes

__all__ = ["EpisodeRequest", "group_rollouts", "run_episodes"]
