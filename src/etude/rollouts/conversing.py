"""Whole episodes by a model that only gives texts back: one behind an endpoint, or a scripted one. The same environments, turn by turn, without tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.ledger import Ledger
from etude.models.replies import Reply
from etude.models.responders import Asked, Responder
from etude.models.sampling import SamplingParams
from etude.rollouts.episodes import Episode, EpisodeRequest, close_all
from etude.tasks.base import TaskSet
from etude.types import Message, Segment, Trajectory

Whole = Callable[[str], str]
"""Puts back what a sampler cut off the end of a turn, such as the mark that it stopped at."""
Answers = Callable[[Sequence[int], Sequence[tuple[Message, ...]]], Sequence[Reply]]
"""The next turn of some episodes, given their numbers and what was said in each so far."""


def held_episodes(
    answers: Answers,
    requests: Sequence[EpisodeRequest],
    task_set: TaskSet,
    *,
    max_turns: int,
    ledger: Ledger,
    whole: Whole = lambda text: text,
) -> list[Trajectory]:
    """One trajectory for each request, in their order, not judged. All episodes take a turn together; the environments then answer one after another.

    answers: who plays. whole: what was written as it goes into the conversation. Environment steps are added to `ledger`; what answers cost is for `answers` to count.
    """
    episodes = [Episode(request, [], task_set.environment()) for request in requests]
    try:
        histories = [_opening(episode) for episode in episodes]
        running = list(range(len(episodes)))
        while running:
            going_on = []
            for i, reply in zip(running, answers(running, [tuple(histories[i]) for i in running]), strict=True):
                messages = _turn(episodes[i], reply, max_turns, ledger)
                if messages is not None:
                    histories[i] += [Message("assistant", whole(reply.text)), *messages]
                    going_on.append(i)
            running = going_on
    finally:
        close_all([episode.environment for episode in episodes if episode.environment is not None])
    return [episode.trajectory() for episode in episodes]


def respond_episodes(
    responder: Responder,
    requests: Sequence[EpisodeRequest],
    task_set: TaskSet,
    params: SamplingParams,
    *,
    max_turns: int,
    ledger: Ledger,
) -> list[Trajectory]:
    """`held_episodes` played by a responder, whose turns draw under the stream of their request. An episode that would no longer fit in its context ends there."""
    turns = [0] * len(requests)

    def answers(running: Sequence[int], histories: Sequence[tuple[Message, ...]]) -> list[Reply]:
        asked: list[Asked] = []
        fitting: list[bool] = []
        for i, history in zip(running, histories, strict=True):
            fitting.append(turns[i] == 0 or responder.fits(history, 1))
            if fitting[-1]:
                asked.append(Asked(f"{requests[i].task.id}/{requests[i].stream}/{turns[i]}", history))
            turns[i] += 1
        rows = iter(responder.replies(asked, params, samples=1, key=("episode",)) if asked else [])
        return [next(rows)[0] if fits else NO_ROOM for fits in fitting]

    return held_episodes(answers, requests, task_set, max_turns=max_turns, ledger=ledger)


NO_ROOM = Reply("", 0.0, False)
"""What stands for a turn that there was no room for."""


def _opening(episode: Episode) -> list[Message]:
    request = episode.request
    if episode.environment is None:
        return list(request.task.opening if request.messages is None else request.messages)
    return list(episode.environment.reset(request.task))


def _turn(episode: Episode, reply: Reply, max_turns: int, ledger: Ledger) -> tuple[Message, ...] | None:
    """Note a turn and let the environment answer. Returns what it says, or None where the episode has ended."""
    if reply is NO_ROOM:
        return None
    episode.segments.append(Segment([], "policy", reply.text))
    episode.stop_reason = "eos" if reply.finished else "length"
    if episode.environment is None:
        return None
    answer = episode.environment.step(reply.text)
    ledger.environment_steps += 1
    episode.hear(answer)
    episode.stop_reason = "environment" if answer.done else "length"
    if answer.done or episode.turns >= max_turns:
        return None
    author = "tool" if any(m.role == "tool" for m in answer.messages) else "environment"
    episode.segments.append(Segment([], author, "\n".join(m.content for m in answer.messages)))
    return answer.messages
