"""From verdicts to rewards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from etude.errors import InputError
from etude.tasks.base import TOOL_COUNTS, TaskSet, total
from etude.types import Trajectory


def judge(trajectories: Iterable[Trajectory], task_set: TaskSet) -> None:
    """Fill in `rewards` (every component) and `reward` (their weighted total) of each trajectory.

    A single turn is judged by the task set. An episode in an environment is judged by the environment: `environment` is the sum of its steps' rewards,
    `correct` its verdict or, where it gave none, the episode's reward cut to [0, 1]; what else the task set says of the last turn is added.
    What an environment's tool did (`tool_calls`, `tool_errors`) is recorded as components too, without weight.
    A component that could not be judged is NaN; a reward that needs it is NaN too, which means unscorable.
    Raises InputError when a component that has a weight is missing, and when one is infinite: no mean over attempts would be finite.
    """
    trajectories = list(trajectories)
    task_set.prepare(trajectories)
    for trajectory in trajectories:
        components = dict(task_set.verify_trajectory(trajectory))
        components |= {name: float(trajectory.tags[name]) for name in sorted(TOOL_COUNTS & trajectory.tags.keys())}
        if "environment_reward" in trajectory.tags:
            components["environment"] = float(trajectory.tags["environment_reward"])
            trajectory.reward = total(components, task_set.environment_weights)
            verdict = trajectory.tags.get("environment_correct", components.get("correct"))
            components["correct"] = _within_unit(trajectory.reward) if verdict is None else float(verdict)
        else:
            trajectory.reward = total(components, task_set.reward_weights)
        for name, value in {**components, "reward": trajectory.reward}.items():
            if math.isinf(value):
                raise InputError(
                    f"{task_set.name} judged an attempt at task {trajectory.task.id!r} with {name} = {value}; "
                    "expected a finite number, or NaN for what could not be judged"
                )
        trajectory.rewards = components


def judge_shown(examples: Sequence[Trajectory], task_set: TaskSet) -> None:
    """Fill in the rewards of conversations that somebody else wrote, as if they were the policy's episodes; whatever else judging says of an episode goes into its tags."""
    for example in examples:
        segments = [replace(s, author="policy") if s.author == "injected" else s for s in example.segments]
        episode = replace(example, segments=segments, tags={**example.tags, "environment_reward": 0.0})
        judge([episode], task_set)
        example.reward, example.rewards, example.tags = episode.reward, episode.rewards, episode.tags


def _within_unit(value: float) -> float:
    return value if math.isnan(value) else min(1.0, max(0.0, value))
