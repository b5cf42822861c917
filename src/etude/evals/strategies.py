"""What a policy's choice of strategy is worth: apart from how well it solves, and beside what other uses of the strategies would give.

Each of Q tasks is tried in each of K strategies, whatever the policy prefers. With the probabilities that it gives the strategies, that says what its first attempt is
worth, what the best fixed strategy would be, and what somebody would reach who always knew which one works (an oracle, which compares with no other accuracy).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from etude.evals.passk import maj_at_k, vote_labels
from etude.evals.revision import Rounds
from etude.ledger import Ledger
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge
from etude.rollouts import EpisodeRequest, run_episodes
from etude.rollouts.openings import Openings
from etude.tasks.base import TaskSet
from etude.tasks.revisions import VERDICTS
from etude.types import Metrics, Task, Trajectory, mean

MOST_KINDS = 8
"""Kinds of tasks up to which numbers are given for each."""


@dataclass(frozen=True)
class Tried:
    """Q tasks in K strategies, S samples each. right: [Q, K, S] verdicts in [0, 1], none of them NaN. lengths: [Q, K, S] tokens. answers: [Q][K] final answers of the
    first samples. kinds: [Q] what kind of task each is, empty texts where nobody says."""

    names: Sequence[str]
    right: NDArray[np.float64]
    lengths: NDArray[np.float64]
    answers: Sequence[Sequence[str | None]]
    kinds: Sequence[str]

    @property
    def chance(self) -> NDArray[np.float64]:
        """[Q, K] share of right samples."""
        return self.right.mean(axis=2)

    def best_of_kind(self) -> NDArray[np.int64]:
        """[Q] the strategy that does best at the tasks of this one's kind."""
        kinds = np.array(self.kinds)
        best = {kind: int(self.chance[kinds == kind].mean(axis=0).argmax()) for kind in set(self.kinds)}
        return np.array([best[kind] for kind in self.kinds])


def entropy_of(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """[Q] entropy in nats of each row of [Q, K]."""
    return -(probabilities * np.log(np.where(probabilities > 0, probabilities, 1.0))).sum(axis=1)


def strategy_metrics(tried: Tried, probabilities: NDArray[np.float64], at_start: NDArray[np.float64] | None = None) -> Metrics:
    """What tries in every strategy show of a policy that chooses them with `probabilities` ([Q, K], rows sum to 1).

    `first`: expected accuracy of the first attempt, sum over k of p(k) times the chance that strategy k is right. `fixed_NAME`: accuracy with one strategy for all
    tasks; `best_fixed`: the highest of them. `best_by_kind`: of the best strategy for each kind. `oracle_strategy`: of the best for each task, which nobody knows.
    `tag_entropy` in nats, `tag_NAME` mean probability, and by kind `tag_KIND_NAME`. `tag_accuracy`: share of tasks whose likeliest strategy is the best of its kind;
    `tag_right`: of tasks that some strategies get right and others wrong, the share where the likeliest is right.
    `choice_at_start`: what today's choice would be worth with the solutions at the start, at_start [Q, K]: how much of the gain is choosing.
    `vote`: accuracy of a majority vote over one attempt in each strategy, and `vote_tokens`, tokens a task that it takes.
    What has no value is left out.
    """
    chance, rows = tried.chance, np.arange(len(tried.right))
    likeliest, best = probabilities.argmax(axis=1), tried.best_of_kind()
    fixed = chance.mean(axis=0)
    labels = [vote_labels(row) for row in tried.answers]
    votes = [maj_at_k(row, scores, len(row)) for row, scores in zip(labels, tried.right[:, :, 0].tolist(), strict=True)]
    metrics: Metrics = {
        "first": float((probabilities * chance).sum(axis=1).mean()),
        "best_fixed": float(fixed.max()),
        "best_by_kind": float(chance[rows, best].mean()),
        "oracle_strategy": float(tried.right[:, :, 0].max(axis=1).mean()),
        "tag_entropy": float(entropy_of(probabilities).mean()),
        "vote": float(np.mean(votes)),
        "vote_tokens": float(tried.lengths[:, :, 0].sum(axis=1).mean()),
    }
    metrics |= {f"fixed_{name}": float(value) for name, value in zip(tried.names, fixed, strict=True)}
    metrics |= {f"tag_{name}": float(value) for name, value in zip(tried.names, probabilities.mean(axis=0), strict=True)}
    kinds = sorted(set(tried.kinds))
    if 1 < len(kinds) <= MOST_KINDS:
        metrics["tag_accuracy"] = float((likeliest == best).mean())
        for kind in kinds:
            of_kind = np.array(tried.kinds) == kind
            means = probabilities[of_kind].mean(axis=0)
            metrics |= {f"tag_{kind}_{name}": float(value) for name, value in zip(tried.names, means, strict=True)}
    apart = (chance.min(axis=1) < 0.5) & (chance.max(axis=1) >= 0.5)
    if apart.any():
        metrics["tag_right"] = float((chance[rows, likeliest] >= 0.5)[apart].mean())
    if at_start is not None:
        metrics["choice_at_start"] = float((probabilities * at_start).sum(axis=1).mean())
    return metrics


def retry_metrics(turns: Sequence[Sequence[Trajectory]], answer_in: Callable[[str], str | None]) -> Metrics:
    """Of judged tries in turn at each task: `retry_oracle_stop`, the share that some try solves, where somebody who knows the answer says when to stop; `retry_first`, the
    share that the first one solves; `retry_tokens` of a task, all its tries told."""
    rows = [replace(row[-1], tags={VERDICTS: [t.correct for t in row]}) for row in turns]
    rounds = Rounds.of(rows, answer_in)
    tokens = mean([float(sum(t.generated_length for t in row)) for row in turns])
    return {"retry_first": float(rounds.accuracy[0]), "retry_oracle_stop": float(rounds.oracle[-1]), "retry_tokens": tokens}


def preferred(openings: Openings, tasks: Sequence[Task], ledger: Ledger) -> NDArray[np.float64]:
    """[Q, K] probabilities of the openings for each task, among each other: whatever else the policy might have begun with."""
    logprobs = np.array(openings.logprobs([openings.policy.render(task.opening) for task in tasks], ledger))
    weights = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def tried_in_all(
    openings: Openings, names: Sequence[str], tasks: Sequence[Task], task_set: TaskSet, params: SamplingParams, *, samples: int, seed: int, ledger: Ledger
) -> Tried:
    """Every task tried with each of K openings, `samples` times. An attempt that cannot be judged counts as wrong. The same seed draws alike for every policy."""
    count = len(names)
    wanted = [(task, k, stream_key("strategies", seed, task.id, names[k], s)) for task in tasks for k in range(count) for s in range(samples)]
    attempts = _opened(openings, wanted, task_set, params, ledger)
    shape = (len(tasks), count, samples)
    right = np.nan_to_num(np.array([t.correct for t in attempts], dtype=np.float64)).reshape(shape)
    lengths = np.array([t.generated_length for t in attempts], dtype=np.float64).reshape(shape)
    answers = [[task_set.answer_in(attempts[(q * count + k) * samples].last_text) for k in range(count)] for q in range(len(tasks))]
    return Tried(list(names), right, lengths, answers, [str(task.info.get("kind", "")) for task in tasks])


def greedy_first(
    openings: Openings, probabilities: NDArray[np.float64], tasks: Sequence[Task], task_set: TaskSet, params: SamplingParams, *, ledger: Ledger
) -> float:
    """Accuracy of one attempt at each task in the likeliest strategy, written greedily. probabilities: [Q, K]."""
    wanted = [(task, int(row.argmax()), 0) for task, row in zip(tasks, probabilities, strict=True)]
    return mean([t.correct for t in _opened(openings, wanted, task_set, replace(params, temperature=0.0), ledger)])


def _opened(openings: Openings, wanted: Sequence[tuple[Task, int, int]], task_set: TaskSet, params: SamplingParams, ledger: Ledger) -> list[Trajectory]:
    """Judged attempts: a task, the number of its opening and the key of its random numbers each."""
    requests = [EpisodeRequest(task, i, stream, opening=openings.tokens[k]) for i, (task, k, stream) in enumerate(wanted)]
    attempts = run_episodes(openings.policy, requests, task_set, params, max_turns=1, ledger=ledger)
    judge(attempts, task_set)
    return attempts
