"""Attempts as plain JSON values, for a method's state: `X_from_plain(X_to_plain(x))` gives an equal x. Numbers keep every digit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from etude.rollouts.episodes import Episode, EpisodeRequest
from etude.types import Alternatives, Completion, Message, Segment, StartingPoint, Task, Trajectory

Plain = dict[str, Any]


def task_to_plain(task: Task) -> Plain:
    """A task; what `info` holds has to be plain already."""
    return {**asdict(replace(task, info={})), "info": dict(task.info)}


def task_from_plain(plain: Mapping[str, Any]) -> Task:
    start = plain["start"]
    return Task(
        **{
            **plain,
            "messages": _messages(plain["messages"]),
            "start": StartingPoint(_messages(start["messages"]), start["author"]) if start is not None else None,
        }
    )


def request_to_plain(request: EpisodeRequest) -> Plain:
    messages = None if request.messages is None else [asdict(m) for m in request.messages]
    return {"task": task_to_plain(request.task), "sample": request.sample, "stream": request.stream, "messages": messages, "opening": list(request.opening)}


def request_from_plain(plain: Mapping[str, Any]) -> EpisodeRequest:
    messages = None if plain["messages"] is None else _messages(plain["messages"])
    return EpisodeRequest(task_from_plain(plain["task"]), plain["sample"], plain["stream"], messages, tuple(plain.get("opening", ())))


def trajectory_to_plain(trajectory: Trajectory) -> Plain:
    """A trajectory that grew on no other's tree. Raises ValueError for one that has a parent, which would be saved without its place."""
    if trajectory.parent is not None:
        raise ValueError(f"sample {trajectory.sample} at task {trajectory.task.id!r} has a parent; expected a trajectory that stands alone")
    return {**asdict(replace(trajectory, task=_NO_TASK)), "task": task_to_plain(trajectory.task)}


def trajectory_from_plain(plain: Mapping[str, Any]) -> Trajectory:
    return Trajectory(**{**plain, "task": task_from_plain(plain["task"]), "segments": [_segment(s) for s in plain["segments"]]})


def episode_to_plain(episode: Episode) -> Plain:
    """A stopped episode, without its environment, to which the policy's turns are played again when it is resumed."""
    return {
        "request": request_to_plain(episode.request),
        "prompt": episode.prompt,
        "segments": [asdict(s) for s in episode.segments],
        "reward": episode.reward,
        "correct": episode.correct,
        "tools": episode.tools,
        # The sampler's number for the request means nothing to another sampler.
        "writing": None if episode.writing is None else asdict(replace(episode.writing, request=0)),
    }


def episode_from_plain(plain: Mapping[str, Any]) -> Episode:
    writing = plain["writing"]
    return Episode(
        **{
            **plain,
            "request": request_from_plain(plain["request"]),
            "environment": None,
            "segments": [_segment(s) for s in plain["segments"]],
            "writing": None if writing is None else Completion(**{**writing, "alternatives": _alternatives(writing["alternatives"])}),
        }
    )


_NO_TASK = Task("", ())


def _messages(plain: Any) -> tuple[Message, ...]:
    return tuple(Message(**m) for m in plain)


def _segment(plain: Mapping[str, Any]) -> Segment:
    return Segment(**{**plain, "alternatives": _alternatives(plain["alternatives"])})


def _alternatives(plain: Any) -> list[Alternatives]:
    return [Alternatives(**a) for a in plain]
