"""How a batch of attempts used a tool, by what its environment reported (`tool_calls`, `tool_errors`)."""

from __future__ import annotations

from collections.abc import Sequence

from etude.evals.monitors import RIGHT
from etude.types import Metrics, Trajectory, mean


def tool_use(trajectories: Sequence[Trajectory]) -> Metrics:
    """Empty where there is no tool.

    `tool/calls`: calls an attempt. `tool/error_rate`: share of the calls that failed. `tool/error_rate_right`: the same over right attempts only, which is how far
    rewards for outcomes tolerate flawed ways. `tool/free_right`: share of the right attempts that made no call. `tool/length_right`: tokens of a right attempt.
    Those over right attempts, and the rates, are left out where there are no such attempts or calls.
    """
    if not any("tool_calls" in t.tags for t in trajectories):
        return {}
    right = [t for t in trajectories if t.correct >= RIGHT]
    found: Metrics = {"tool/calls": mean([float(_calls(t)) for t in trajectories])}
    for name, chosen in (("tool/error_rate", trajectories), ("tool/error_rate_right", right)):
        calls = sum(map(_calls, chosen))
        if calls:
            found[name] = sum(int(t.tags.get("tool_errors", 0)) for t in chosen) / calls
    if right:
        found["tool/free_right"] = mean([float(not _calls(t)) for t in right])
        found["tool/length_right"] = mean([float(t.generated_length) for t in right])
    return found


def _calls(trajectory: Trajectory) -> int:
    return int(trajectory.tags.get("tool_calls", 0))
