"""How experience is gathered over one sampler: episodes and groups of them, rounds that follow what the first attempts showed, trees, and partial rollouts."""

from etude.rollouts.adaptive import adaptive_rollouts
from etude.rollouts.dynamic import is_mixed, until_enough
from etude.rollouts.episodes import Episode, EpisodeRequest, Episodes, run_episodes
from etude.rollouts.group import group_rollouts
from etude.rollouts.partial import Gathered, PartialRollouts
from etude.rollouts.staleness import staleness, without_stale_tokens

__all__ = [
    "Episode",
    "EpisodeRequest",
    "Episodes",
    "Gathered",
    "PartialRollouts",
    "adaptive_rollouts",
    "group_rollouts",
    "is_mixed",
    "run_episodes",
    "staleness",
    "until_enough",
    "without_stale_tokens",
]
