"""Chains of attempts: each begins from the one before, and is a single turn with a prompt of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.rollouts.follow_up import has_room
from etude.tasks.base import TaskSet
from etude.types import Task, Trajectory


def chain_rollouts(
    policy: LanguageModel,
    first: Sequence[Trajectory],
    follow: Callable[[Trajectory], Task],
    task_set: TaskSet,
    params: SamplingParams,
    *,
    steps: int,
    stream: Callable[[Trajectory, int], int],
    ledger: Ledger,
) -> list[list[Trajectory]]:
    """`steps` further attempts after each of some first ones, not judged. Returns one chain for each, of 1 + steps attempts, the first one included.

    follow: what is asked after an attempt. stream(first attempt, step) names the random numbers of a step, counted from 1.
    A chain whose next prompt leaves no room for an answer stays where it is: its last attempt is repeated.
    """
    chains = [[attempt] for attempt in first]
    for step in range(1, steps + 1):
        tasks = [follow(chain[-1]) for chain in chains]
        going = [i for i, task in enumerate(tasks) if has_room(policy, task, params.max_new_tokens)]
        requests = [EpisodeRequest(tasks[i], first[i].sample, stream(first[i], step)) for i in going]
        made = dict(zip(going, run_episodes(policy, requests, task_set, params, max_turns=1, ledger=ledger), strict=True))
        for i, chain in enumerate(chains):
            chain.append(made.get(i, chain[-1]))
    return chains
