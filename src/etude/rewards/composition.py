"""A reward put together from named components, with weights that may change over a run.

A task set, a user's reward function or a method says what an attempt is worth; this is the component `reward`. `--reward-weights` adds further components of the
judgement to it, each with a weight: a number, or a schedule. What shapes the beginning of a run (the form of an answer, say) can so fade when it has done its work.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from etude.errors import InputError, nearest
from etude.types import Metrics, Trajectory

OWN = "reward"
"""The name of what the task set or the method itself says that an attempt is worth."""
JUDGED = "judged"
"""The component that keeps it, where weights changed the reward."""
FORM = "NAME=WEIGHT, or NAME=STEP:WEIGHT,STEP:WEIGHT with growing steps, as format=0:0.5,50:0"


@dataclass(frozen=True, slots=True)
class ComponentWeight:
    """The weight of one component: linear between the steps that are given, and constant before the first and after the last."""

    name: str
    steps: tuple[float, ...]
    weights: tuple[float, ...]

    def at(self, step: float) -> float:
        """The weight at a step of the run."""
        after = bisect.bisect_right(self.steps, step)
        if after in (0, len(self.steps)):
            return self.weights[max(0, after - 1)]
        begin, end = self.steps[after - 1 : after + 1]
        share = (step - begin) / (end - begin)
        return (1 - share) * self.weights[after - 1] + share * self.weights[after]


def read_weights(entries: Sequence[str]) -> tuple[ComponentWeight, ...]:
    """Weights from the option's entries. Raises InputError for an entry of another form, and for a name that is given twice."""
    weights = tuple(_read(entry) for entry in entries)
    names = [weight.name for weight in weights]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"--reward-weights names {twice!r} twice; give one entry for each component")
    return weights


def check_weights(weights: Iterable[ComponentWeight], components: Collection[str]) -> None:
    """Raises InputError for a weight of a component that is not among those that attempts are judged by."""
    for weight in weights:
        if weight.name not in (OWN, *components):
            raise InputError(
                f"--reward-weights names the component {weight.name!r}, but attempts are judged by {', '.join(sorted(components)) or 'none'}."
                f"{nearest(weight.name, [OWN, *components])} `{OWN}` stands for what an attempt is worth without these weights"
            )


def compose(trajectories: Sequence[Trajectory], weights: Sequence[ComponentWeight], step: int) -> Metrics:
    """Replace the reward of judged attempts by (weight of `reward`, else 1) · reward + Σ weight · component, at a step of the run.

    What the reward was is kept as the component `judged`, so that attempts that are learnt from again are weighed anew. A component that some attempts do not have
    counts as 0 for them; NaN stays NaN, which means unscorable. The weights of the step are returned, for the log. Raises InputError for a component that no attempt has.
    """
    if not weights or not trajectories:
        return {}
    check_weights(weights, {name for trajectory in trajectories for name in trajectory.rewards})
    now = {weight.name: weight.at(step) for weight in weights}
    for trajectory in trajectories:
        judged = trajectory.rewards.get(JUDGED, trajectory.reward)
        added = sum((weight * trajectory.rewards.get(name, 0.0) for name, weight in now.items() if weight and name != OWN), 0.0)
        own = now.get(OWN, 1.0)
        trajectory.reward = (own * judged if own else 0.0) + added
        trajectory.rewards[JUDGED] = judged
    return {f"reward_weight/{name}": weight for name, weight in now.items()}


def _read(entry: str) -> ComponentWeight:
    name, separator, value = entry.partition("=")
    parts = value.split(",")
    try:
        if not (name and separator):
            raise ValueError
        if len(parts) == 1 and ":" not in value:
            return ComponentWeight(name, (0.0,), (_finite(value),))
        points = [(float(int(step)), _finite(weight)) for step, weight in (part.split(":") for part in parts)]
        steps = tuple(step for step, _ in points)
        if steps[0] < 0 or any(b <= a for a, b in itertools.pairwise(steps)):
            raise ValueError
    except ValueError:
        raise InputError(f"--reward-weights has the entry {entry!r}; expected {FORM}") from None
    return ComponentWeight(name, steps, tuple(weight for _, weight in points))


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise ValueError
    return value
