"""Whether a policy finds back: episodes that somebody failed, taken over after their first turns (the revision test of Agent-R, arXiv:2501.11425)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from etude.evals.monitors import RIGHT
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge
from etude.rollouts import EpisodeRequest, run_episodes
from etude.tasks.base import TaskSet
from etude.tasks.begun import Begun, begun_after
from etude.types import Metrics, Task, Trajectory, mean


def failed_prefixes(rows: Sequence[Sequence[Trajectory]], tasks: TaskSet, turns: int, author: str) -> list[Task]:
    """Tasks begun after the first `turns` turns of an attempt that failed: one of each row, which has the attempts at one task.

    Where the task set knows the first wrong turn, it has to be among these. Attempts that could not be judged, or have no turn beyond, are left out.
    """
    found: list[Task] = []
    for row in rows:
        for attempt in row:
            actions = [s.text for s in attempt.segments if s.author == "policy"]
            if attempt.correct >= RIGHT or math.isnan(attempt.correct) or len(actions) <= turns:
                continue
            first = tasks.first_wrong_step(attempt.task, actions)
            begun = begun_after(tasks, attempt.task, actions[:turns], author) if first is None or 0 <= first < turns else None
            if begun is not None:
                found.append(begun)
                break
    return found


def recovery(policy: LanguageModel, begun: Sequence[Task], tasks: TaskSet, params: SamplingParams, *, max_turns: int, seed: int, ledger: Ledger) -> Metrics:
    """What a policy makes of tasks with starting points, one attempt at each.

    `recovered`: share that ends in success; `revision_score`: mean reward; both are left out where nothing could be judged. `begun`: how many tasks there are.
    """
    played = Begun(tasks)
    requests = [EpisodeRequest(task, 0, stream_key("evaluation", seed, "begun", task.id)) for task in begun]
    attempts = run_episodes(policy, requests, played, params, max_turns=max_turns, ledger=ledger)
    judge(attempts, played)
    judged = [t for t in attempts if not math.isnan(t.reward)]
    metrics = {"begun": float(len(begun))}
    return metrics | ({"recovered": mean([float(t.correct >= RIGHT) for t in judged]), "revision_score": mean([t.reward for t in judged])} if judged else {})
