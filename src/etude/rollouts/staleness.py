"""How old the policy was that wrote what is trained on. A token's lag is the number of updates between the weights that drew it and those that are updated now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from etude.types import Group, Metrics, Segment, Trajectory, trajectories_of


def lags(trajectories: Iterable[Trajectory], version: int) -> list[int]:
    """The lag of each trained token of some trajectories, under the weights of `version`."""
    return [version - v for t in trajectories for s in t.segments if s.trained for v in s.versions]


def staleness(groups: Sequence[Group], version: int) -> Metrics:
    """`rollout/stale_tokens`: share of the trained tokens that older weights drew. `rollout/lag_mean`, `rollout/lag_max`: their lag, over all trained tokens."""
    found = lags(trajectories_of(groups), version)
    if not found:
        return {}
    return {
        "rollout/stale_tokens": sum(lag > 0 for lag in found) / len(found),
        "rollout/lag_mean": sum(found) / len(found),
        "rollout/lag_max": float(max(found)),
    }


def without_stale_tokens(groups: Sequence[Group], version: int) -> list[Group]:
    """Copies of some groups in which tokens that older weights drew are context and no target, so that they are in no loss and no denominator.

    Advantages stay where they are. A trained segment without versions counts as the current policy's. The groups themselves are not changed.
    """
    return [replace(group, trajectories=[_freshly_trained(t, version) for t in group.trajectories]) for group in groups]


def _freshly_trained(trajectory: Trajectory, version: int) -> Trajectory:
    return replace(trajectory, segments=[part for s in trajectory.segments for part in (_parts(s, version) if s.trained else [s])])


def _parts(segment: Segment, version: int) -> list[Segment]:
    """A trained segment cut where its policy changes between an older one and that of `version`. The last part has the text."""
    cuts = [i for i in range(1, len(segment.versions)) if (segment.versions[i] < version) != (segment.versions[i - 1] < version)]
    parts = []
    for start, end in zip([0, *cuts], [*cuts, len(segment.tokens)], strict=True):
        of = slice(start, end)
        parts.append(
            replace(
                segment,
                tokens=segment.tokens[of],
                text=segment.text if end == len(segment.tokens) else "",
                trained=not segment.versions or segment.versions[start] >= version,
                logprobs=segment.logprobs[of],
                entropies=segment.entropies[of],
                versions=segment.versions[of],
                advantages=segment.advantages[of],
                alternatives=segment.alternatives[of],
            )
        )
    return parts
