"""How experience is gathered: episodes over one sampler, single- or multi-turn, groups of them, and partial rollouts that go on in a later step."""

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
    "group_rollouts",
    "run_episodes",
    "staleness",
    "without_stale_tokens",
]
