"""How experience is gathered over one sampler: episodes and groups of them, rounds that follow what the first attempts showed, trees, partial rollouts,
and a second phase on what the first one wrote."""

from etude.rollouts.adaptive import adaptive_rollouts
from etude.rollouts.dynamic import is_mixed, until_enough
from etude.rollouts.episodes import Episode, EpisodeRequest, Episodes, run_episodes
from etude.rollouts.follow_up import follow_up_rollouts, has_room, of_kind
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
    "follow_up_rollouts",
    "group_rollouts",
    "has_room",
    "is_mixed",
    "of_kind",
    "run_episodes",
    "staleness",
    "until_enough",
    "without_stale_tokens",
]
